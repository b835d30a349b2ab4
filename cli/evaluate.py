"""``epifoundation evaluate``: models and other methods side by side on the same cells."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .reporting import INTERRUPTED, one_line_errors, quiet_libraries

CARRIED = Path(__file__).resolve().parents[1] / "examples" / "data" / "snare_cell_lines"

evaluate = typer.Typer(
    name="evaluate",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Compare models and other methods on the same cells: a table, figures and files.",
)

Data = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="An .h5ad or .h5mu of raw counts of peaks, or a folder of tokenised cells."),
]
CarriedData = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DATA]",
        help="An .h5ad or .h5mu of raw counts of peaks, or a folder of tokenised cells; by default, in a clone of the "
        "project, the SNARE-seq cell lines of examples/data.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for tables, figures, results and trained models.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="A checkpoint: a folder, or a name on the Hub; may be repeated. 'scratch' is a small model trained here.",
        show_default="scratch",
    ),
]
Rna = Annotated[Path | None, typer.Option(help="An .h5ad or .h5mu of raw gene counts of the same cells.")]
LabelKey = Annotated[str, typer.Option(help="Column of obs with the cell types.")]
BatchKey = Annotated[str | None, typer.Option(help="Column of obs with the batches.", show_default="none")]
Genome = Annotated[str, typer.Option(help="Assembly of the peaks.")]
Methods = Annotated[
    str | None,
    typer.Option(help="Other methods, separated by commas; '' for none.", show_default="all that are installed"),
]
Seeds = Annotated[str, typer.Option(help="Seeds of divisions and methods, separated by commas.")]
Holdout = Annotated[
    str, typer.Option(help="What to hold out: cell, batch (whole ones), or split (as tokenised cells come divided).")
]
TestShare = Annotated[float, typer.Option(help="Share of the cells of each type, or of the batches, to hold out.")]
TestBatches = Annotated[str, typer.Option(help="Batches to hold out by name, separated by commas.")]
OnValidation = Annotated[
    bool,
    typer.Option(
        "--on-validation",
        help="Compare on a fifth of the training cells and leave those held out alone: for choosing settings.",
    ),
]
NoTypes = Annotated[
    str, typer.Option(help="Labels that name no cell type, separated by commas; such cells are left out.")
]
MaxCells = Annotated[
    int | None, typer.Option(min=1, help="Draw so many of the cells, the same share of each type.", show_default="all")
]
Finetune = Annotated[bool, typer.Option("--finetune/--no-finetune", help="Fine-tune the models on the training cells.")]
MinCells = Annotated[int, typer.Option(min=1, help="Leave out genes that fewer training cells express.")]
PretrainSettings = Annotated[
    Path | None, typer.Option(help="YAML settings of pre-training in place of the small ones.", show_default="small")
]
FinetuneSettings = Annotated[
    Path | None, typer.Option(help="YAML settings of fine-tuning in place of the small ones.", show_default="small")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of PeakVI, scANVI and MultiVI.", show_default="20 or 30")
]
Card = Annotated[
    Path | None,
    typer.Option(help="A model card (README.md) that the results of the first model are written into."),
]


@evaluate.command()
@one_line_errors
def batch(
    data: Data,
    output: Output,
    model: Models = None,
    rna: Rna = None,
    label_key: LabelKey = "cell_type",
    batch_key: BatchKey = "batch",
    genome: Genome = "hg38",
    methods: Methods = None,
    seeds: Seeds = "0",
    holdout: Holdout = "cell",
    test_share: TestShare = 0.2,
    test_batches: TestBatches = "",
    on_validation: OnValidation = False,
    no_types: NoTypes = "",
    max_cells: MaxCells = None,
    finetune: Finetune = True,
    min_cells_per_gene: MinCells = 20,
    pretrain_settings: PretrainSettings = None,
    finetune_settings: FinetuneSettings = None,
    epochs: Epochs = None,
    card: Card = None,
) -> None:
    """Batch correction: are cell types apart and batches together among the cells held out?

    Compares embeddings by PCA, LSI, Harmony, LIGER, PeakVI, scANVI and the models, these as they come and fine-tuned
    on the types of the training cells. Leaves batch.md, batch.csv, batch.json and figures. A finished method is not
    computed again: after an interruption the same command goes on.

    Example: epifoundation evaluate batch atac.h5ad --model checkpoint --batch-key donor --output comparison
    """
    _compare("batch", locals())


@evaluate.command()
@one_line_errors
def annotation(
    data: CarriedData = None,
    *,
    output: Output,
    model: Models = None,
    rna: Rna = None,
    label_key: LabelKey = "cell_type",
    batch_key: BatchKey = None,
    genome: Genome = "hg38",
    methods: Methods = None,
    seeds: Seeds = "0",
    holdout: Holdout = "cell",
    test_share: TestShare = 0.2,
    test_batches: TestBatches = "",
    on_validation: OnValidation = False,
    no_types: NoTypes = "",
    max_cells: MaxCells = None,
    finetune: Finetune = True,
    min_cells_per_gene: MinCells = 20,
    pretrain_settings: PretrainSettings = None,
    finetune_settings: FinetuneSettings = None,
    epochs: Epochs = None,
    card: Card = None,
) -> None:
    """Annotation: are the types of the cells held out found?

    Compares logistic regression and nearest neighbours on LSI, scANVI, and the models, fine-tuned on the types of the
    training cells (with --no-finetune a checkpoint must hold a classifier). Leaves annotation.md, annotation.csv,
    annotation.json and figures; finished methods are not computed again.

    Example: epifoundation evaluate annotation atac.h5ad --model checkpoint --output comparison
    """
    _compare("annotation", locals())


@evaluate.command()
@one_line_errors
def expression(
    data: CarriedData = None,
    *,
    output: Output,
    model: Models = None,
    rna: Rna = None,
    label_key: LabelKey = "cell_type",
    batch_key: BatchKey = None,
    genome: Genome = "hg38",
    methods: Methods = None,
    seeds: Seeds = "0",
    holdout: Holdout = "cell",
    test_share: TestShare = 0.2,
    test_batches: TestBatches = "",
    on_validation: OnValidation = False,
    no_types: NoTypes = "",
    max_cells: MaxCells = None,
    finetune: Finetune = True,
    min_cells_per_gene: MinCells = 20,
    pretrain_settings: PretrainSettings = None,
    finetune_settings: FinetuneSettings = None,
    epochs: Epochs = None,
    card: Card = None,
) -> None:
    """Expression: how well are the levels of genes predicted from peaks alone?

    Compares each gene's mean, gene activity, MultiVI, and the models, fine-tuned on the genes of the training cells
    (with --no-finetune a checkpoint must hold a head for expression), also with their cells shuffled, which must fall
    to chance. Leaves expression.md, expression.csv, expression.json and figures; finished methods are not computed
    again.

    Example: epifoundation evaluate expression atac.h5ad --rna rna.h5ad --model checkpoint --output comparison
    """
    _compare("expression", locals())


@evaluate.command()
@one_line_errors
def ablation(
    data: Data,
    output: Output,
    rna: Rna = None,
    label_key: LabelKey = "cell_type",
    batch_key: BatchKey = "batch",
    genome: Genome = "hg38",
    seeds: Seeds = "0",
    holdout: Holdout = "cell",
    test_share: TestShare = 0.2,
    test_batches: TestBatches = "",
    on_validation: OnValidation = False,
    no_types: NoTypes = "",
    max_cells: MaxCells = None,
    min_cells_per_gene: MinCells = 20,
    pretrain_settings: PretrainSettings = None,
    finetune_settings: FinetuneSettings = None,
) -> None:
    """Ablation: what do batch labels and chromosomes add?

    Trains a small model four times, with and without each, and compares its fine-tuned embeddings of the cells held
    out. Leaves ablation.md, ablation.csv, ablation.json and figures; finished runs are not repeated.

    Example: epifoundation evaluate ablation atac.h5ad --rna rna.h5ad --batch-key donor --output comparison
    """
    _compare("ablation", locals())


def _compare(task: str, given: dict[str, Any]) -> None:
    output: Path = given["output"]
    if given["data"] is None:
        given["data"], given["rna"] = _carried()
    try:
        from datasets import disable_progress_bars

        from .comparison.files import leave_files
        from .comparison.request import request_of
        from .comparison.tasks import TASKS

        quiet_libraries()
        disable_progress_bars()  # of datasets; ours counts methods
        comparison = TASKS[task](request_of(given))
        typer.echo(comparison.report.markdown())
        names = leave_files(comparison, output, given.get("card"))
        typer.echo(f"{output}: {', '.join(names)}")
    except ImportError as error:  # of an extra: its message names the command that installs it
        raise ValueError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what is finished is kept in {output}, the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _carried() -> tuple[Path, Path]:
    if not CARRIED.is_dir():
        raise ValueError(
            "name the data: the SNARE-seq cell lines taken by default come with a clone of the project, not with the "
            "installed package"
        )
    return CARRIED / "atac.h5ad", CARRIED / "rna.h5ad"
