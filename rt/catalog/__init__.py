"""The device catalog: types of peripherals, and the names, types and limits of their parameters."""

from rt.catalog.load import Catalog, from_tables, load, parse
from rt.catalog.parameter import OutOfRangeWarning, Parameter
from rt.catalog.peripheral import Peripheral, unknown_parameter

__all__ = [
    "Catalog",
    "OutOfRangeWarning",
    "Parameter",
    "Peripheral",
    "from_tables",
    "load",
    "parse",
    "unknown_parameter",
]
