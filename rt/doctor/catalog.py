"""Checks of the device catalog."""

from pathlib import Path

from rt.doctor.registry import Environment, Result, check, fail, ok
from rt.errors import CatalogError


@check("catalog")
def catalog(environment: Environment) -> Result:
    """The device catalog can be read and is valid."""
    from rt.catalog import load

    name = environment.config.dev_catalog
    try:
        peripherals = load(environment.directory / name if name else None)
    except CatalogError as error:
        return fail(
            str(error), "correct the catalog, or leave dev_catalog empty for the built-in one"
        )
    smart = [each for each in peripherals.values() if each.device_id is not None]
    return ok(f"{Path(name) if name else 'built-in catalog'}: {len(smart)} types of Smart Devices")
