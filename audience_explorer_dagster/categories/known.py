"""The categories: their files below the root, and the partitions that are made of them."""

from collections.abc import Iterable

import dagster as dg

from audience_explorer_dagster.partitions import categories
from audience_explorer_dagster.store import Store
from spark_jobs.errors import InputError
from spark_jobs.vectors.category_files import BadCategory, check_name


def new_categories(instance: dg.DagsterInstance, store: Store) -> tuple[list[str], dict[str, str]]:
    """The category files that are no partition yet, and what is wrong with those that can't be one, by name."""
    added: list[str] = []
    refused: dict[str, str] = {}
    known = set(instance.get_dynamic_partitions(str(categories.name)))
    for name in store.category_names():
        try:
            if check_name(name) not in known:
                added.append(name)
        except BadCategory as error:
            refused[name] = str(error)
    return added, refused


def sync_categories(instance: dg.DagsterInstance, store: Store) -> tuple[list[str], dict[str, str]]:
    """Add a partition for every new category file; those added, and what is wrong with those refused."""
    added, refused = new_categories(instance, store)
    if added:
        instance.add_dynamic_partitions(str(categories.name), added)
    return added, refused


def list_categories(instance: dg.DagsterInstance, store: Store) -> list[str]:
    """The categories that have a file and a partition, in the order in which they were added."""
    with_file = set(store.category_names())
    return [name for name in instance.get_dynamic_partitions(str(categories.name)) if name in with_file]


def check_categories(
    instance: dg.DagsterInstance, store: Store, names: Iterable[str], new: Iterable[str] = ()
) -> list[str]:
    """The categories, once each; all that have a file and a partition, if none is given.

    Args:
        instance: Where the partitions are.
        store: Where the files are.
        names: Those that are wanted.
        new: Those that have a file and will have a partition.

    Raises:
        InputError: One has no file, or there is none at all.
    """
    known = [*list_categories(instance, store), *new]
    wanted = list(dict.fromkeys(names)) or known
    if not wanted:
        raise InputError(f"There is no category file in {store.categories}. Put one there, NAME.json.")
    for name in wanted:
        if name not in known:
            raise InputError(
                f"There is no category {name!r}: no file {store.category_file(name)}. Known: {', '.join(known)}."
            )
    return wanted
