"""The columns of a tokenised data set, the one table that training, evaluation and the Hub exchange."""

from collections.abc import Sequence

from datasets import ClassLabel, Features, List, Value

UNKNOWN_LABEL = -1  # of a ClassLabel column, as `datasets` itself has it


def cell_features(
    *,
    is_paired: bool = True,
    cell_types: Sequence[str] | None = None,
    batches: Sequence[str] | None = None,
    assays: Sequence[str] | None = None,
    has_tissue: bool = False,
    has_donor: bool = False,
) -> Features:
    """Name and type of each column; one row is one cell.

    ``barcode``
        Name of the cell.
    ``input_ids``
        ``[CLS]``, then the ids of all its open peaks in rising order: never cut to a maximum, so that training may
        draw other peaks each time.
    ``gene_ids``, ``gene_counts``
        Ids of the expressed genes in rising order, and their raw counts, all above 0. Genes that are not listed have
        the count 0.
    ``cell_type``, ``batch``
        Classes; a cell type that is not known is -1.
    ``assay``
        Class of a bulk sample; -1 where it is not known.
    ``tissue``, ``donor``
        Texts; None where they are not known.

    Chromosomes, expression bins and the genes that are not expressed follow from these and are not stored.

    Args:
        is_paired: whether expression was measured too; it adds ``gene_ids`` and ``gene_counts``.
        cell_types: names of the classes of ``cell_type``; without them there is no such column.
        batches: names of the classes of ``batch``, likewise.
        assays: names of the classes of ``assay``, likewise.
        has_tissue: whether there is a column ``tissue``.
        has_donor: whether there is a column ``donor``.
    """
    columns = {"barcode": Value("string"), "input_ids": List(Value("int32"))}
    if is_paired:
        columns |= {"gene_ids": List(Value("int32")), "gene_counts": List(Value("float32"))}
    for name, classes in (("cell_type", cell_types), ("batch", batches), ("assay", assays)):
        if classes is not None:
            columns[name] = ClassLabel(names=list(classes))
    for name, is_there in (("tissue", has_tissue), ("donor", has_donor)):
        if is_there:
            columns[name] = Value("string")
    return Features(columns)
