"""The Dagster project of Audience Explorer: it decides what needs doing, has it done, and records it."""

import re
import warnings

import dagster as dg

from audience_explorer_dagster.records.sqlite_engines import keep_engines

# In beta for years, and each would say so on every command: single_run() makes a block of partitions one launch, the
# mapping joins months to month × category.
for _name in ("backfill_policy", "MultiToSingleDimensionPartitionMapping"):
    warnings.filterwarnings("ignore", category=dg.BetaWarning, message=f".*{re.escape(_name)}")
# In preview: an evaluation of a check for each partition, without which a run of one month hides a failure of another.
warnings.filterwarnings("ignore", category=dg.PreviewWarning, message=".*partitions_def on an AssetCheckSpec")

keep_engines()
