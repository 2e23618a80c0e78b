"""The jobs' Arrow schemas as Dagster shows them, with what each column is."""

from collections.abc import Iterable, Mapping

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
    "smallest_segment": "People in the smallest segment, about; a record has them rounded to tens, and few for fewer.",
}
ASSIGNMENT = {
    "user_id": "The user. There is one row for each.",
    "cluster_id": "The cluster with the nearest center; 0 is the largest.",
    "distance": "The distance to that center.",
    "confidence": "0 if another center is as near, 1 at the center itself.",
}
# Of the tables in records, as a partition's page shows them.
IN_RECORDS = {
    **TRIED,
    "reason": "The rule that raw rows broke.",
    "rows": "How many rows broke it.",
    "cluster_id": "The cluster's number in the files of kmeans; 0 is the largest.",
    "cluster_ids": "The clusters of this month that are the segment; none where it is not seen this month.",
    "segment_id": "The segment's number, the same in all months.",
    "name": "What sets it apart, in words.",
    "people": "How many people, rounded to tens; few are fewer than ten.",
    "share": "Its share of the category's people.",
    "solidity": "Whether it is found again among other people like these: solid, fair or doubtful.",
    "actions": "What a person of it does, on average: page likes, page comments, post likes, post comments.",
    "into": "The pages that set it apart, with how many times likelier its people are to like each.",
    "born": "The first month in which it was seen.",
    "last_seen": "The last month in which it had a cluster of its own.",
    "users": "How many users, rounded to tens; few are fewer than ten.",
    "top_pages": "The pages that most of its users like, with the share who do.",
    "current": "Whether it is the output that others read; promoted if a person said so.",
    "label": "The names that runs gave it.",
    "k": "The number of clusters; chosen, where k_selection said it.",
    "parameters": "How it was made, where that is not by default.",
    "sizes": "The users of each cluster, the largest first; rounded to tens, few are fewer than ten.",
    "computed (UTC)": "When.",
    "folder": "The name of its folder.",
}


def table_schema(columns: Iterable[str]) -> dg.TableSchema:
    """The columns of a table in a record, which shows text only."""
    return dg.TableSchema([dg.TableColumn(name, description=IN_RECORDS[name]) for name in columns])


def column_schema(schema: pa.Schema, descriptions: Mapping[str, str]) -> dg.TableSchema:
    """The columns of a table, for an asset's page.

    Args:
        schema: The table's.
        descriptions: What each of its columns is.
    """
    return dg.TableSchema(
        [dg.TableColumn(field.name, str(field.type), description=descriptions[field.name]) for field in schema]
    )
