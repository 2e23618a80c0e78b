"""The jobs' Arrow schemas as Dagster shows them, with what each column is."""

from collections.abc import Mapping

import dagster as dg
import pyarrow as pa

RAW = {
    "user_id": "Who did it. Required.",
    "page_id": "The page, or the page of the post. Required.",
    "action": "page_like, page_comment, post_like or post_comment. Required.",
    "gender": "As given; 0, or left out, for not known.",
    "count": "How many times, at least 1; 1 if left out.",
    "timestamp": "When, ISO 8601 in UTC, within the folder's month. May be left out.",
}
GROUPED_USER = {
    "user_id": "The user. There is one row for each.",
    "gender": "The known gender that most of the user's actions have; 0 if none is known.",
    "pages": "The user's pages, each with the number of each action of the month.",
}
PROFILE = {
    "profile_id": "The distinct vector: `members.parquet` says which users have it.",
    "indices": "The dimensions, that is pages of `dimensions.parquet`, on which the vector is not 0.",
    "values": "The vector's values on them, after scaling.",
    "weight": "How many users have this vector.",
    "fit_weight": "How many of them have enough actions to be learned from.",
}
TRIED = {
    "k": "The number of segments that was tried.",
    "wssse": "Within-cluster sum of squared distances to the centers; it falls as k grows.",
    "silhouette": "Mean simplified silhouette, -1 to 1; higher is better.",
    "calinski_harabasz": "Spread between the segments over spread within; higher is better.",
    "prediction": "How well the segments that one half of the pages suggests tell the other half; 0 is no better than"
    " popularity.",
    "smallest_segment": "People in the smallest segment, about.",
}
ASSIGNMENT = {
    "user_id": "The user. There is one row for each.",
    "cluster_id": "The cluster with the nearest center; 0 is the largest.",
    "distance": "The distance to that center.",
    "confidence": "0 if another center is as near, 1 at the center itself.",
}


def column_schema(schema: pa.Schema, descriptions: Mapping[str, str]) -> dg.TableSchema:
    """The columns of a table, for an asset's page.

    Args:
        schema: The table's.
        descriptions: What each of its columns is.
    """
    return dg.TableSchema(
        [dg.TableColumn(field.name, str(field.type), description=descriptions[field.name]) for field in schema]
    )
