"""Random histories of jobs: random verbs on the real database, compared with a small reference model."""

from tests.app.jobs.state_machine import Lives, live
from tests.users import Person


def test_a_hundred_random_job_histories_match_the_reference_model(alice_user: Person) -> None:
    live(alice_user, sequences=100, verbs=12, seed_number=1)
    assert Lives.num_sequences >= 100
