"""The threads in which requests send messages: a mail server may take long to answer."""

from app.web.errors import busy
from app.web.pools import Pool

SENDING = Pool(2, max_waiting=8, max_per_client=2, refusal=busy)
