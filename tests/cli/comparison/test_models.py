import pytest

from epifoundation.training.options import read_options
from epifoundation_cli.comparison.models import RUNS, small_options, words_of


@pytest.mark.parametrize("kind", RUNS)
def test_the_small_settings_are_options_of_their_run(kind, tmp_path):
    given = {"data": tmp_path, "output_dir": tmp_path, "model": tmp_path}
    options, arguments = read_options(RUNS[kind][0], words_of(small_options(kind, 500) | given))
    assert options.max_peaks == 400
    assert arguments.per_device_train_batch_size == 16


def test_few_cells_are_seen_more_often():
    epochs = [small_options("expression", num_cells)["num_train_epochs"] for num_cells in (50, 750, 7_000)]
    assert epochs == [30, 15, 4]
