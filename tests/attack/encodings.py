"""Chat templates and tokenizers, which are programs that users upload."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.attack import hostile_models
from tests.attack.attacks import attack
from tests.attack.requests import check_escapes
from tests.attack.target import Target, list_counts, slowly
from tests.waiting import until

MAX_PREVIEW_SECONDS = 15
MAX_GENERATE_SECONDS = 60
INJECTIONS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ messages.__class__.__base__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ joiner.__init__.__globals__.__builtins__.open('/etc/passwd').read() }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.environ }}",
    "{% extends '/etc/passwd' %}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{{ messages.append(1) }}{{ messages.pop() }}",
    "{{ (1).__class__.__bases__[0].__subclasses__() }}",
    "{{ dict.fromkeys(['a'], 1).__class__ }}",
    "{{ request.environ }}{{ config }}{{ url_for.__globals__ }}",
)
BOMBS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(10**9) %}x{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{{ 10 ** 10 ** 8 }}",
    "{{ 'a' | center(10**10) }}",
    "{{ [[0] * 10**5] * 10**5 }}",
    "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{{ ('x' * 99999) | replace('x', 'x' * 99999) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ 1e308 * 10 }}{{ 1 // 0 }}",
    "{{ messages | map('string') | join('x' * 10**9) }}",
    "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
    "{% if x %}" * 3_000,
    "{{ 'a' | wordwrap(1) | indent(10**9) }}",
)
LEAKS = ("root:x:", "<class '", "uid=", "os.environ", "PATH=", "__builtins__", "subprocess")


def preview(client: httpx.Client, template: str) -> tuple[httpx.Response, float]:
    """Apply a template to a conversation; returns the response and its seconds."""
    begin = time.monotonic()
    response = client.post("/api/v1/jobs/preview-template", json={"chat_template": template})
    return response, time.monotonic() - begin


@attack("T1", "chat templates that reach for Python, files and the environment", seconds=240)
def template_injections(target: Target) -> str:
    """Nothing of the system is in a response."""
    with target.client(target.mallory, timeout=90) as client, ThreadPoolExecutor(2) as threads:
        answers = threads.map(lambda template: preview(client, template), INJECTIONS)
        for template, (response, _seconds) in zip(INJECTIONS, answers, strict=True):
            leaks = [leak for leak in LEAKS if leak in response.text.replace(template, "")]
            assert not leaks, f"{template} shows {leaks[0]}"
    return target.list_statuses()


@attack("T2", "chat templates that loop, grow and recurse, eight at a time", seconds=240)
def template_bombs(target: Target) -> str:
    """Each is stopped in seconds."""
    with target.client(target.mallory, timeout=90) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda template: answered(client, template), BOMBS))
    statuses = Counter(response.status_code for response, _seconds in answers)
    assert set(statuses) == {422}, statuses
    slowest = max(seconds for _response, seconds in answers)
    assert slowest < MAX_PREVIEW_SECONDS * 8, f"a template ran for {slowest:.0f} s"
    return f"{target.list_statuses()}; each template was stopped, the slowest waited and ran for {slowest:.1f} s"


def answered(client: httpx.Client, template: str) -> tuple[httpx.Response, float]:
    """Apply a template, again while others take all places; returns the response and its seconds."""
    answers = []

    def is_answered() -> bool:
        answers[:] = [preview(client, template)]
        return answers[0][0].status_code not in (429, 503)

    until(slowly(is_answered), 200, "a place for a template")
    return answers[0]


@attack("K1", "tokenizers that grow texts, backtrack, do not fit; each is then asked for text", seconds=300)
def tokenizers(target: Target) -> str:
    """Each is refused at the import, or encodes a prompt within its limits."""
    states = Counter[str]()
    slowest = 0.0
    with target.client(target.mallory, timeout=MAX_GENERATE_SECONDS + 10) as client:
        hostile = list(hostile_models.tokenizers(target.model_files))
        ids = [target.import_model(client, name[:60], files) for name, files in hostile]
        for (name, _files), model_id in zip(hostile, ids, strict=True):
            target.doing = f"import of {name}"
            model = target.until_done(client, f"/api/v1/models/{model_id}", 240)
            states[model["state"]] += 1
            if model["state"] == "ready":
                target.doing = f"generation with {name}"
                begin = time.monotonic()
                body = {"checkpoint": model_id, "prompt": "a" * 64, "max_tokens": 2}
                response = client.post("/api/v1/generate", json=body)
                states[f"generate {response.status_code}"] += 1
                slowest = max(slowest, time.monotonic() - begin)
            client.delete(f"/api/v1/models/{model_id}")
    check_escapes(target)
    assert slowest < MAX_GENERATE_SECONDS, f"a prompt of 64 characters took {slowest:.0f} s"
    return f"{list_counts(states)}; the slowest generation took {slowest:.1f} s"


@attack("G1", "60 generations at once by one user, half of whose clients leave", seconds=150)
def generations(target: Target) -> str:
    """They wait in a bounded queue, or are refused with 429 or 503."""
    checkpoint = target.ids["checkpoint_id"]
    body = {"checkpoint": checkpoint, "prompt": "The sheep", "max_tokens": 20}

    def generate(number: int) -> str:
        try:
            timeout = 1 if number % 2 else 60
            with target.client(target.alice, timeout=timeout) as client:
                return str(client.post("/api/v1/generate", json=body).status_code)
        except httpx.TimeoutException:
            return "left"

    with ThreadPoolExecutor(60) as threads:
        results = Counter(threads.map(generate, range(60)))
    assert results["200"] or results["429"], results
    return list_counts(results)
