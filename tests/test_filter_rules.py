"""datagen.rules: what an expression may say, what it means when scores are missing or only bounded."""

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.rules import MAX_CHARACTERS, UNDECIDED, Interval, Name, OneOf, conjuncts, parse_rule
from datagen.scores import KNOWN

NAMES = {
    "cheap": Name(kind="number", stage=0, meaning=""),
    "dear": Name(kind="number", stage=4, meaning=""),
    "other": Name(kind="number", stage=2, meaning=""),
    "kind": Name(kind="text", stage=4, meaning=""),
}


SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def truth(text: str, **values: object) -> object:
    return parse_rule("r", text, NAMES).holds(values.__getitem__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cheap > 3", True),
        ("3 < cheap <= 5", True),
        ("cheap > 3 and dear > 3", False),
        ("cheap > 3 or dear > 3", True),
        ("not (dear > 3)", True),
        ("cheap / dear > 2.4", True),
        ("-cheap + 2 * dear < 0", True),
        ("max(cheap, dear) == 5 and abs(-2) == 2", True),
        ("kind in ('medium', 'dense')", False),
        ("kind not in {'medium'} and kind == 'none'", True),
        ("cheap is not None", True),
    ],
)
def test_expressions_mean_what_python_means(text, expected):
    assert truth(text, cheap=5.0, dear=2.0, kind="none") is expected


def test_only_the_scores_that_matter_are_asked_for_cheap_ones_first():
    asked = []

    def lookup(name):
        asked.append(name)
        return {"cheap": 1.0, "dear": 1.0, "other": 1.0}[name]

    assert parse_rule("r", "dear > 0 and other > 5 and cheap > 0", NAMES).holds(lookup) is False
    assert asked == ["cheap", "other"]
    asked.clear()
    assert parse_rule("r", "dear > 0 or cheap > 0", NAMES).holds(lookup) is True
    assert asked == ["cheap"]


def test_a_rule_costs_what_its_dearest_score_costs():
    assert parse_rule("r", "dear > 0 and cheap > 0", NAMES).stage == 4
    assert parse_rule("r", "cheap > 0", NAMES).stage == 0


def test_what_is_unknown_drops_nothing_but_what_is_false_does():
    assert truth("cheap > 3", cheap=None) is None
    assert truth("cheap > 3 and dear > 3", cheap=None, dear=1.0) is False
    assert truth("cheap > 3 or dear > 3", cheap=None, dear=9.0) is True
    assert truth("not (cheap > 3)", cheap=None) is None
    assert truth("cheap + 1 > 3", cheap=None) is None
    assert truth("cheap / dear > 3", cheap=1.0, dear=0.0) is None
    assert truth("cheap is None", cheap=None) is True


def test_bounds_decide_when_all_of_them_lie_on_one_side():
    assert truth("dear > 100", dear=Interval(0, 99)) is False
    assert truth("dear > 100", dear=Interval(101, 500)) is True
    assert truth("dear > 100", dear=Interval(50, 500)) is UNDECIDED
    assert truth("dear > 100 and cheap > 0", dear=Interval(50, 500), cheap=-1.0) is False
    assert truth("kind == 'dense'", kind=OneOf(frozenset({"none", "sparse"}))) is False
    assert truth("kind in ('none', 'sparse')", kind=OneOf(frozenset({"none", "sparse"}))) is True
    assert truth("kind == 'none'", kind=OneOf(frozenset({"none", "sparse"}))) is UNDECIDED


@settings(deadline=None)
@given(st.integers(-9, 9), st.integers(0, 9), st.integers(-9, 9), st.sampled_from(sorted(SIGNS)), st.integers(0, 9))
def test_a_decision_by_bounds_is_the_decision_by_any_value_inside(low, width, threshold, sign, place):
    decided = truth(f"dear {sign} {threshold}", dear=Interval(low, low + width))
    assert decided is UNDECIDED or decided is SIGNS[sign](low + min(place, width), threshold)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chaep > 3", "no score is called 'chaep', did you mean 'cheap'; there are cheap, dear, kind, other"),
        ("cheap >", "is no expression"),
        ("cheap", "it is no comparison"),
        ("cheap > 'a'", "compares number with text"),
        ("kind < 'a'", "compares text with text"),
        ("kind == 3", "compares text with number"),
        ("cheap in (1, 'a')", "plain texts or plain numbers"),
        ("cheap and dear > 1", "cheap stands where a comparison belongs"),
        ("__import__('os').system('true') == 0", "may not stand in a rule"),
        ("cheap.real > 1", "may not stand in a rule"),
        ("cheap ** 9 > 1", "may not stand in a rule"),
        ("(lambda: cheap)() > 1", "may not stand in a rule"),
        ("[x for x in (1, 2)] == 1", "may not stand in a rule"),
        ("f'{cheap}' == 'a'", "may not stand in a rule"),
        ("min() > 1", "min and max take two or more"),
        ("True == 1", "may not stand in a rule"),
        ("cheap > " + "9" * 400, "a number too large"),
        ("cheap > 1 and " * 90 + "cheap > 1", f"the limit is {MAX_CHARACTERS}"),
        ("(" * 300 + "cheap > 1" + ")" * 300, "is no expression"),
    ],
)
def test_what_no_rule_may_say_is_refused_with_a_sentence(text, message):
    with pytest.raises(ValueError, match="rule r: ") as caught:
        parse_rule("r", text, NAMES)
    assert message in str(caught.value)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_clear_refusal(text):
    try:
        rule = parse_rule("r", text, NAMES)
    except ValueError as error:
        message = str(error)
    else:
        message = "rule r: fine"
        rule.holds(lambda name: "none" if name == "kind" else 1.0)
    assert message.startswith("rule r: ")


def test_the_parts_of_a_conjunction_are_rules_of_their_own():
    assert conjuncts("cheap > 1 and (dear > 2 or other > 3) and kind == 'a'") == [
        "cheap > 1",
        "dear > 2 or other > 3",
        "kind == 'a'",
    ]
    assert conjuncts("cheap > 1 or dear > 2") == ["cheap > 1 or dear > 2"]


def test_the_short_names_of_scores_are_known():
    assert parse_rule("keep", "chars_per_mp > 2000 and sharpness > -2", KNOWN).stage == KNOWN["characters"].stage
