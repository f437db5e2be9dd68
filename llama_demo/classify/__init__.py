"""Classification on the one shared backbone: label likelihoods, or a trained head on frozen features."""
