"""Labels in answers: an answer that is one, labels of every script and form, options, and labels that are denied."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.runtime.labels.reading import match_label, parse_label

MOODS = ("negative", "neutral", "positive")
NUMBERS = ("-1", "0", "1")
LANGUAGES = ("C", "C++", "C#", "Python")
HATE = ("hate", "not-hate")
OPTIONS = ("A", "B", "C", "D")
CHINESE = ("积极", "消极", "中性")
JAPANESE = ("ポジティブ", "ネガティブ")
THAI = ("เชิงบวก", "เชิงลบ")
KOREAN = ("긍정", "부정")
HINDI = ("सकारात्मक", "नकारात्मक")
ARABIC = ("إيجابي", "سلبي")
RUSSIAN = ("позитивный", "негативный")
FRENCH = ("négatif", "positif")

names = st.lists(st.text(min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=6, unique=True)
hard_names = st.lists(
    st.text(alphabet="abAB -_.+#1029不好", min_size=1, max_size=5).filter(str.strip),
    min_size=1,
    max_size=6,
    unique=True,
)


@settings(deadline=None)
@given(names | hard_names, st.text(max_size=30) | st.text(alphabet="abAB -_.+#1029不好{}\"':\n", max_size=30))
def test_every_label_is_itself_and_no_text_gives_anything_but_a_label(labels: list[str], text: str) -> None:
    for label in labels:
        assert parse_label(label, labels) == label
        assert match_label(label, labels) == label
    assert parse_label(text, labels) in (*labels, None)


@given(st.sampled_from(MOODS), st.sampled_from(["", " ", "\n", ".", "!", '"', "*", "_", "。", "»"]), st.booleans())
def test_a_label_is_read_whatever_stands_around_it(label: str, around: str, upper: bool) -> None:
    assert parse_label(around + (label.upper() if upper else label) + around, MOODS) == label


@pytest.mark.parametrize("labels", [NUMBERS, LANGUAGES, HATE, OPTIONS, CHINESE, FRENCH, ("+", "-"), ("us", "US", "it")])
def test_outputs_that_equal_the_right_labels_are_all_right(labels: tuple[str, ...]) -> None:
    assert [parse_label(label, labels) for label in labels] == list(labels)
    assert [parse_label(f" {label}\n", labels) for label in labels] == list(labels)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" Positive.\n", "positive"),
        ("**NEGATIVE**", "negative"),
        ("The sentiment is neutral.", "neutral"),
        ("neutral, clearly neutral", "neutral"),
        ("overwhelmingly-positive", "positive"),
        ("it is _positive_", "positive"),
        ("Ｐｏｓｉｔｉｖｅ", "positive"),
        ("「positive」", "positive"),
        ("这是positive的", "positive"),
        ("I say positive or negative", None),
        ("positively", None),
        ("", None),
        ("I cannot say", None),
    ],
)
def test_an_answer_is_read_as_a_label_or_as_none(text: str, label: str | None) -> None:
    assert parse_label(text, MOODS) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("label: positive", "positive"),
        ("Sentiment: Positive.", "positive"),
        ("Label: positive\nReason: nothing negative is in it", "positive"),
        ('{"label": "positive"}', "positive"),
        ('```json\n{"label": "positive", "reason": "not negative"}\n```', "positive"),
        ('{"label": "mixed", "reason": "positive and so on"}', None),
        ('["positive"]', "positive"),
        ('[{"label": "POSITIVE", "score": 0.98}]', "positive"),
        ('Here it is: {"label": "positive", "reason": "not negative"}', "positive"),
        ('{"label": "positive"} or {"label": "negative"}', None),
        ("{broken: positive}", "positive"),
        ("{'label': 'positive'}", "positive"),
        ("<label>positive</label>", "positive"),
        ("so it is $\\boxed{positive}$", "positive"),
        ("Positive\n\nThe text has no negative words.", "positive"),
        ("It is neither good nor bad, so not positive.\n\n**Neutral**", "neutral"),
        ("Neutral. The text is neither positive nor negative.", "neutral"),
        ("Neutral (neither positive nor negative)", "neutral"),
        ("The sentiment is neutral, neither positive nor negative.", "neutral"),
        ("The sentiment is positive, not negative.", "positive"),
        ("Positive, although parts of it are negative.", None),
        ("Positive, negative and neutral.", None),
        ("positive\nnegative", None),
        ("Sentiment: positive\nSentiment: negative", None),
        ('{"positive": 0.9, "negative": 0.1}', None),
    ],
)
def test_a_field_that_is_called_the_answer_is_the_answer(text: str, label: str | None) -> None:
    assert parse_label(text, MOODS) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("+1", "1"),
        ("−1", "-1"),
        ("1.0", "1"),
        ("(-1)", "-1"),
        ("-1.", "-1"),
        ("minus 1", "-1"),
        ("The label is -1.", "-1"),
        ("score: 1", "1"),
        ("1 (positive)", "1"),
        ("0.9", None),
        ("-0.5", None),
        (".1", None),
        ("10", None),
        ("1%", None),
        ("1,5", None),
        ("2019-01-01", None),
        ("- 1", None),
        ("0 or 1", None),
    ],
)
def test_a_number_is_a_label_by_its_whole_value_and_sign(text: str, label: str | None) -> None:
    assert parse_label(text, NUMBERS) == label


def test_a_score_beside_the_label_is_no_label() -> None:
    assert parse_label('{"label": 1, "score": 0}', ("0", "1")) == "1"


def test_a_sign_that_no_label_has_makes_another_number_and_a_list_mark_does_not() -> None:
    assert parse_label("-1", ("0", "1")) is None
    assert parse_label("- 1", ("0", "1")) == "1"
    assert parse_label("4 out of 5", ("1", "2", "3", "4", "5")) == "4"
    assert parse_label("4/5", ("1", "2", "3", "4", "5")) is None
    assert parse_label("1", ("1", "1.0")) == "1"
    assert parse_label("01.0", ("1", "1.0")) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("This is C++.", "C++"),
        ("C++17 code", "C++"),
        ("The language is C#, clearly", "C#"),
        ("**C++**", "C++"),
        ("It's written in C.", "C"),
        ("python", "Python"),
        ("C or C++", None),
        ("Objective-C", None),
    ],
)
def test_the_longest_label_between_the_bounds_of_words_counts(text: str, label: str | None) -> None:
    assert parse_label(text, LANGUAGES) == label


def test_a_label_is_no_part_of_another_name() -> None:
    labels = ("C", "Python")
    assert [parse_label(text, labels) for text in ("C++", "It is C++ code", "C#")] == [None, None, None]
    assert parse_label("That is very positive!", ("positive", "very positive")) == "very positive"
    assert parse_label("LABEL_10", ("LABEL_0", "LABEL_1")) is None
    assert parse_label("11 star", ("1 star", "5 stars")) is None
    assert parse_label("irrelevant", ("relevant", "irrelevant")) == "irrelevant"
    assert parse_label("Grade: B+", ("A", "B")) is None


def test_case_tells_labels_apart_where_it_must_and_is_left_out_elsewhere() -> None:
    assert parse_label("it is US", ("us", "US")) == "US"
    assert parse_label("Us", ("us", "US")) is None
    assert parse_label("tell us more", ("US", "UK")) is None
    assert parse_label("It belongs to HR.", ("IT", "HR")) == "HR"
    assert parse_label("İYİ", ("iyi", "kötü")) == "iyi"
    assert parse_label("Yes, because", ("YES", "NO")) == "YES"
    assert parse_label("I have no idea", ("yes", "no")) is None
    assert parse_label("Yes, it does; no harm was seen", ("yes", "no")) == "yes"
    assert parse_label("Yes and no", ("yes", "no")) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("not hate", "not-hate"),
        ("not_hate", "not-hate"),
        ("This is not hate.", "not-hate"),
        ("NOT HATE", "not-hate"),
        ("hate speech", "hate"),
        ("no hate", None),
        ("non-hate", None),
    ],
)
def test_a_negated_label_is_the_label_that_is_so_called(text: str, label: str | None) -> None:
    assert parse_label(text, HATE) == label


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (("hate", "normal"), "not hate"),
        (("hate", "normal"), "This does not contain any hate"),
        (("hate", "normal"), "free of hate"),
        (("hate", "normal"), "hate-free"),
        (("toxic", "clean"), "isn't toxic"),
        (("toxic", "clean"), "isn’t toxic"),
        (("toxic", "clean"), "no toxic content"),
        (("toxic", "clean"), "non-toxic"),
        (("toxic", "clean"), "nontoxic"),
        (("toxic", "non-toxic"), "not toxic"),
        (MOODS, "neither positive nor negative"),
        (MOODS, "It is positive, not negative"),
        (MOODS, "I don't think this is positive"),
        (MOODS, "positive: no"),
        (MOODS, '{"positive": false}'),
        (MOODS, "positive isn't right"),
        (MOODS, "rather than positive"),
        (("positiv", "negativ"), "nicht positiv"),
        (FRENCH, "Ce n'est pas positif"),
        (RUSSIAN, "не позитивный"),
        (CHINESE, "不积极"),
        (CHINESE, "不是积极的"),
        (("仇恨", "正常"), "这是非仇恨言论"),
        (JAPANESE, "ポジティブではない"),
        (THAI, "ไม่ใช่เชิงบวก"),
        (KOREAN, "긍정이 아닙니다"),
        (HINDI, "यह सकारात्मक नहीं है"),
        (ARABIC, "ليس إيجابي"),
    ],
)
def test_a_label_that_is_denied_is_not_read_and_no_other_is(labels: tuple[str, ...], text: str) -> None:
    assert parse_label(text, labels) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("There is no doubt that it is positive", "positive"),
        ("It does not like the film, so negative", "negative"),
        ("This is neutral because it is not about feelings", "neutral"),
        ("The author is not happy. Negative.", "negative"),
    ],
)
def test_a_negation_of_something_else_denies_no_label(text: str, label: str) -> None:
    assert parse_label(text, MOODS) == label


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (CHINESE, "这条评论的情感是积极的。", "积极"),
        (CHINESE, "答案是“中性”。", "中性"),
        (CHINESE, "非常积极", "积极"),
        (CHINESE, "积极或消极", None),
        (("积极", "非常积极"), "我觉得非常积极。", "非常积极"),
        (("好", "坏"), "这部电影很好", "好"),
        (("是", "否"), "我是学生", None),
        (JAPANESE, "この文はポジティブです。", "ポジティブ"),
        (THAI, "ข้อความนี้เป็นเชิงบวกครับ", "เชิงบวก"),
        (KOREAN, "이 문장은 긍정입니다.", "긍정"),
        (HINDI, "यह सकारात्मक है", "सकारात्मक"),
        (ARABIC, "النص إيجابي.", "إيجابي"),
        (RUSSIAN, "Отзыв ПОЗИТИВНЫЙ.", "позитивный"),
        (("👍", "👎"), "I say 👍🏽!", "👍"),
    ],
)
def test_labels_are_found_in_every_script(labels: tuple[str, ...], text: str, label: str | None) -> None:
    assert parse_label(text, labels) == label


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_forms_of_unicode_are_one_label(form: str) -> None:
    labels = [unicodedata.normalize(form, label) for label in FRENCH]
    for other in ("NFC", "NFD"):
        for text in ("négatif", "C'est négatif.", "Étiquette : NÉGATIF"):
            assert parse_label(unicodedata.normalize(other, text), labels) == labels[0]


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "B.",
        "(B)",
        "B)",
        "B: a dog",
        "B. a dog",
        "(B) a dog",
        "B - a dog",
        "**B**",
        "Answer: B",
        "**Answer:** B",
        "answer: b",
        "The answer is B",
        "The answer is **B. a dog**",
        "The correct answer is (B).",
        "option B",
        "I would choose B",
        "B is correct because a dog barks",
        "B\n\nA dog barks.",
        "A. cat\nB. dog\nAnswer: B",
        "\\boxed{B}",
        "<answer>B</answer>",
        '{"answer": "B"}',
        "My final verdict is: [[B]]",
        "Therefore, B.",
        "answer is B, not A",
        "正确答案是B。",
        "Réponse : B",
        "Die Antwort ist B.",
    ],
)
def test_an_option_is_read_in_every_form_of_one(text: str) -> None:
    assert parse_label(text, OPTIONS) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "This is a hard question.",
        "A hard question.",
        "A dog is an animal",
        "The answer is a dog.",
        "The answer is A dog",
        "Note: A dog",
        "Choose a dog",
        "Vitamin C is good",
        "A-",
        "A's",
        "C'est la vie",
        "Both A and B",
        "A, B",
        "I think A or B",
        "Option A is better than option B",
        "A. cat\nB. dog",
        "The answer is not B",
        "It's not option B.",
        "B is wrong",
        "E",
    ],
)
def test_an_article_several_options_or_a_denied_one_are_no_option(text: str) -> None:
    assert parse_label(text, OPTIONS) is None


def test_options_stand_beside_other_labels_and_may_be_small() -> None:
    verdicts = ("A", "B", "tie")
    assert [parse_label(text, verdicts) for text in ("A tie.", "Response A is better", "A")] == ["tie", "A", "A"]
    small = ("a", "b", "c", "d")
    assert [parse_label(text, small) for text in ("b) dog", "B", "it is a dog")] == ["b", "b", None]
    assert parse_label("(b)", ("(A)", "(B)")) == "(B)"


def test_a_label_in_a_column_is_a_label_or_nothing() -> None:
    assert match_label("NOT hate ", HATE) == "not-hate"
    assert match_label("1.0", NUMBERS) == "1"
    assert match_label(unicodedata.normalize("NFD", "négatif"), FRENCH) == "négatif"
    assert match_label("It is positive", MOODS) is None


@pytest.mark.parametrize("loop", ["\n", " ", "*", "no ", "1-", "A, ", "answer: ", "option ", "(", "{", "-", "not "])
def test_an_answer_that_is_an_endless_loop_is_read_too(loop: str) -> None:
    text = loop * (20_000 // len(loop)) + "x"
    for labels in (("yes", "no"), OPTIONS, NUMBERS, CHINESE):
        assert parse_label(text, labels) in (*labels, None)
