"""The devices that the options describe, for verbs that need no robot: types of the catalog, and names that the team gave."""

from pathlib import Path

from rt import catalog
from rt.catalog import Catalog
from rt.config import Config


def offline_devices(config: Config) -> tuple[Catalog, dict[str, int]]:
    """The catalog of the options, and UIDs by the names that the team gave them.

    Raises:
        CatalogError: The catalog is wrong.
    """
    known = catalog.load(Path(config.dev_catalog) if config.dev_catalog else None)
    return known, {name: int(uid) for name, uid in config.dev_name.items()}
