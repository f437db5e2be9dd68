"""This project beside its peers, on the machine it is run on. Each module is a command; README.md says which."""
