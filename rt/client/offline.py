"""The device types and names that the options give, for commands that need no robot."""

from pathlib import Path

from rt import catalog
from rt.catalog import Catalog
from rt.config import Config


def offline_devices(config: Config) -> tuple[Catalog, dict[str, int]]:
    """Return the catalog of the options, and the UIDs of dev_name by name.

    Raises:
        CatalogError: The catalog is invalid.
    """
    known = catalog.load(Path(config.dev_catalog) if config.dev_catalog else None)
    return known, {name: int(uid) for name, uid in config.dev_name.items()}
