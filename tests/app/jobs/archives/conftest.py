"""What tests of imports share: the archive of a job with a real, tiny model."""

from tests.app.jobs.archives.test_import import archive, corpus, in_process, job_id

__all__ = ["archive", "corpus", "in_process", "job_id"]
