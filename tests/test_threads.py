"""Numerics stay on one core, in whatever thread they run."""

from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_info

from models import serving
from models.training import fit
from tests.streams import examples, spec


def _openmp_threads() -> set[int]:
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "openmp"}


def test_predictions_take_one_core_in_every_thread() -> None:
    """The runtime predicts in a thread pool, and OpenMP counts for each of its threads apart."""
    trained = fit(spec(), examples(), 0)
    model = serving.load(trained.artefact, spec())

    def predict_and_count() -> set[int]:
        model.predict(examples().rows)
        return _openmp_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(predict_and_count).result() == {1}
    assert _openmp_threads() == {1}  # of this thread, which trained
