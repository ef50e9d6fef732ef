"""Which block belongs in which slot of a transformer autoencoder: layer-replacement search."""

from aejax.search.settings import Replacement, Search, SupernetSearch

__all__ = ["Replacement", "Search", "SupernetSearch"]
