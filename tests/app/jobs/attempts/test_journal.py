"""What the lines of a journal become in the database."""

import pytest

from app.core import db
from app.jobs.attempts import metrics
from app.jobs.attempts.effective_spec import effective_spec
from tests.app.jobs import factories
from tests.users import Person
from trainer import events
from trainer.planning.counts import flops

PROBE = events.ProbeEvent(
    seq=1, at=1.0, precision="fp32", gemm_flops=4e9, step_seconds=1.0, peak_bytes=1, save_seconds=None, is_whole=True
)
TOKENIZER = events.TokenizerEvent(seq=2, at=2.0, path="tokenizer", sha256="0" * 64, vocab_size=300, trained=True)


def test_flops_utilization_is_a_share_of_the_measured_rate_where_the_machine_was_measured(alice_user: Person) -> None:
    factories.node()
    corpus = factories.corpus(alice_user)
    job_id, fence = factories.started(
        alice_user, corpus, max_steps=4, warmup_steps=1, num_processes=2, train_batch_size=32
    )
    values = {"loss": 2.0, "tokens_per_second": 1_000.0}
    points = [
        events.PointsEvent(seq=3, at=3.0, step=1, values=values),
        events.PointsEvent(seq=4, at=4.0, step=2, values={**values, "disk_free_bytes": 9.0}),
        events.PointsEvent(
            seq=5, at=5.0, step=3, values={"loss": 2.0, "tokens_per_second": "nan", "disk_free_bytes": 9.0}
        ),
    ]
    factories.record(job_id, fence, [PROBE, TOKENIZER, *points])

    with db.transaction() as session:
        curves = metrics.curves(session, job_id=job_id, window=metrics.Window(0, 9), series=["mfu_percent"])
    needed = 1_000 * flops(effective_spec(factories.row(job_id)), 300).model_flops
    assert curves["mfu_percent"].steps == [2]
    assert curves["mfu_percent"].values == [pytest.approx(100 * needed / (2 * 4e9))]
