"""The models that there are, and which of them visitors may choose: it grows as the owner adds and offers them."""

from __future__ import annotations

import threading

from llama_demo.catalog import Catalog, Entry
from llama_demo.listing import Listing
from llama_demo.loading import Loader


class Shelf:
    """`everything` is the owner's view and `offered` the visitors'; both are replaced whole, never changed."""

    def __init__(self, everything: Catalog, default_model: str, loader: Loader, listing: Listing) -> None:
        self._loader, self._listing = loader, listing
        self._lock = threading.Lock()
        self.everything = everything
        self.offered = everything.for_visitors(default_model)

    def seen_by(self, *, owner: bool) -> Catalog:
        return self.everything if owner else self.offered

    def names(self) -> list[str]:
        return [entry.name for entry in self.everything.entries]

    def offer(self, name: str) -> None:
        """Lets visitors choose `name`, too, and an adapter's base. Raises `UnknownModel`, `DoesNotFit`."""
        self._loader.plan(name)
        with self._lock:
            wanted = self.everything.with_bases([self.everything.find(name)])
            self.offered = self.offered.preceded([entry for entry in wanted if entry not in self.offered.entries])

    def put(self, entry: Entry) -> None:
        """One more model, in the place of one of its name."""
        with self._lock:
            self.everything = self._loader.catalog = self.everything.preceded([entry])
        self.look_again(entry.name)

    def look_again(self, name: str) -> None:
        """The files of `name` may have come or gone."""
        self._listing.look_again(name)
