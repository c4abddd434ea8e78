"""Chat templates that reach for Python, files and the environment, or that grow, in the process that renders them.

Oracle: each is refused with its reason or writes the harmless text named here, and the template that follows works.
tests/attack asks the same of a running installation.
"""

from pathlib import Path

import pytest

from trainer.data import tokenizer
from trainer.data.chat_template import job_template
from trainer.data.record_refused import RecordRefused
from trainer.data.tokenizer_process import TokenizerProcess

UNSAFE = "is unsafe"
ESCAPES = {  # a template, and a part of the reason; or "= " and the text that it writes
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": UNSAFE,
    "{{ (''|attr('__class__')).__mro__ }}": UNSAFE,
    "{{ ''['__cl' ~ 'ass__'] }}": "= ",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}": "= ",
    "{{ ''.__ｃｌａｓｓ__ }}": "= ",  # Python folds the letters of names, Jinja does not
    "{{ ['']|map(attribute='__class__')|list }}": "= [Undefined]",
    "{{ ['']|map('attr', '__class__')|list }}": "= [Undefined]",
    "{{ messages|selectattr('__class__')|list }}": "= []",
    "{{ messages|sort(attribute='__class__.__name__') }}": UNSAFE,
    "{{ '{0.__class__.__mro__}'.format(messages) }}": UNSAFE,
    "{{ '{a.__class__}'.format_map({'a': messages}) }}": "= ",
    "{% set f = '{0.__class__}'.format %}{{ f(messages) }}": "= ",
    "{{ ['{0.__class__}']|map('format', messages)|list }}": "not all arguments converted",
    "{{ cycler.__init__.__globals__.os.environ }}": UNSAFE,
    "{{ joiner.__init__.__globals__.os.popen('touch CANARY') }}": UNSAFE,
    "{{ namespace.__init__.__globals__.__builtins__.open('CANARY', 'w') }}": UNSAFE,
    "{% set n = namespace() %}{% set n.__class__ = 1 %}{{ n.__class__ }}": "cannot store underscore-prefixed",
    "{{ lipsum.__globals__['os'].environ }}": UNSAFE,
    "{{ ([1]|map('string')).gi_frame.f_globals }}": UNSAFE,
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}": UNSAFE,
    "{% macro m() %}{{ caller.__init__.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}": UNSAFE,
    "{{ self._TemplateReference__context }}": "= ",
    "{% for a in [1] %}{{ loop._iterator.__class__ }}{% endfor %}": "= ",
    "{{ raise_exception.__globals__ }}{{ strftime_now.__globals__ }}": "= ",
    "{% include 'CANARY' %}": "no loader",
    "{% import 'os' as os %}{{ os.environ }}": "no loader",
    "{% from 'os' import environ %}{{ environ }}": "no loader",
    "{{ environ }}{{ os }}{{ config }}{{ request }}{{ open }}{{ __import__ }}": "= ",
    "{{ messages.append(messages[0]) }}": UNSAFE,
    "{{ messages[0].update({'content': 'x'}) }}": UNSAFE,
}
MEMORY = "256 MB of memory"
RECURSION = "maximum recursion depth"
BOMBS = {  # `one` is 1, which Jinja does not know when it compiles the template
    "{{ '%999999999d'|format(one) }}": MEMORY,
    "{{ '%*d' % (10 ** (9 * one), one) }}": MEMORY,
    "{{ '{:>9999999999}'.format(one) }}": MEMORY,
    "{{ 'a'|center(10 ** (10 * one)) }}": MEMORY,
    "{{ 'a'.zfill(10 ** (9 * one)) }}": MEMORY,
    "{{ range(99999 * one)|map('string')|join('x' * 99999) }}": MEMORY,
    "{{ ('a\\n' * 99999 * one)|indent(99999) }}": MEMORY,
    "{{ [1]|batch(10 ** (9 * one), 0)|list }}": MEMORY,
    "{% set x = namespace(s=[one]) %}{% for a in range(60) %}{% set x.s = x.s + x.s %}{% endfor %}": MEMORY,
    "{{ range(10 ** (9 * one))|list }}": "Range too big",
    "{{ 'x' * (3000000 * one) }}": "writes more than",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}": RECURSION,
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}": RECURSION,
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}": RECURSION,
    "{% for a in range(99999 * one) %}{% for b in range(99999) %}{{ lipsum() }}{% endfor %}{% endfor %}": "1 s of",
}
HOSTILE = {**ESCAPES, **BOMBS}


def test_each_hostile_template_is_refused_or_harmless_and_the_next_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("canary")
    monkeypatch.setenv("CANARY", "canary")
    hf_tokenizer = tokenizer.untrained()
    branches = "".join(
        f"{{%- if messages[0].content == '{number}' -%}}{template.replace('CANARY', str(canary))}{{%- endif -%}}"
        for number, template in enumerate(HOSTILE)
    )
    hf_tokenizer.chat_template = f"{{%- set one = messages|length -%}}{branches}{job_template('plain', hf_tokenizer)}"

    with TokenizerProcess(hf_tokenizer) as process:

        def ask(content: str) -> str:
            try:
                ids = process.call("chat", [{"role": "user", "content": content}])
            except RecordRefused as refused:
                return str(refused)
            return "= " + str(hf_tokenizer.decode(ids)).removesuffix(f"User: {content}\n\nAssistant: ")

        for number, (template, outcome) in enumerate(HOSTILE.items()):
            answer = ask(str(number))
            # Filling the memory may take the second of computing time where pages are slow to come.
            outcomes = (MEMORY, "1 s of") if outcome == MEMORY else (outcome,)
            is_right = answer == outcome if outcome.startswith("=") else any(part in answer for part in outcomes)
            assert is_right, f"{template}: {answer}"
            assert ask("Who?") == "= ", template
    assert [file.read_text() for file in tmp_path.iterdir()] == ["canary"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [("{{ 9 ** (9 ** 9) }}", "1 s of"), ("{{ " + "(" * 9_999 + "1" + ")" * 9_999 + " }}", RECURSION)],
)
def test_a_template_that_cannot_be_compiled_is_refused_by_each_call(template: str, reason: str) -> None:
    hf_tokenizer = tokenizer.untrained()
    hf_tokenizer.chat_template = template
    with TokenizerProcess(hf_tokenizer) as process:
        with pytest.raises(RecordRefused, match=reason):
            process.call("chat", [{"role": "user", "content": "Who?"}])
        assert process.call("prompt", "b") == tokenizer.encode_prompt(hf_tokenizer, "b")
