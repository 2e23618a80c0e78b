"""The jobs' Arrow schemas as Dagster shows them."""

import dagster as dg
import pyarrow as pa


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """The columns of a table, for an asset's page."""
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])
