"""Difficult text on which pre-tokenizers differ."""

from __future__ import annotations


def everyday_texts() -> list[str]:
    """Texts for an English model: contractions, digit runs, case changes, white space, code, punctuation."""
    return [
        "Hello, world! It's been 3 years; they're here, I'VE seen, we'll go, he'd stay, can't won't shan't O'Neill's.",
        "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 2024-05-17T08:30:00Z 0x1F 1e-10 50% $9.99 ½ ² ٣ ४५६ ⅷ",
        " leading", "  two", "   three\tfour\t\tfive ", "tail   ",
        "a\nb\n\nc\n\n\nd", "\n", "\n\n \n  \n   x", "\r\n\r\nend\r",
        "x \n y  \n\n  z\t\n\tw", "a\u00a0b\u2003c\u3000d\u200be",
        "camelCase PascalCase snake_case SCREAMING_CASE kebab-case iPhone OpenAI's McDonald's ÀÉÎ éàü ß ǅ",
        "def f(x: int = 3) -> str:\n    return f\"{x!r:>10}\"  # comment\n\tif (a && b || !c) { x++; y->z[0] <<= 2; }",
        "https://example.org/path?q=1&r=%20#frag user@example.org C:\\dir\\file.txt /usr/bin/env",
        "!!! ??? ... ---- ==== **** ~~~~ ((nested [brackets {deep}])) <tag attr='v'/> &amp; ^_^ :-) ;) |x|",
        "'s 'S 't 'll  'LL's x's 'tis 'em '80s don''t \"it's\" ’s they’re",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        "word123word 123abc abc123 v1.2.3-rc4 H2O CO2 x86_64 i18n 3rd 21st 007 00001 9999999999999999",
    ]  # fmt: skip


def hard_texts() -> list[str]:
    """Everyday texts, then other scripts, combining marks, emoji and control characters."""
    return [
        *everyday_texts(),
        "Größe naïve façade œuvre Łódź İstanbul ñandú Æther ﬁne e\u0301 n\u0303",
        "Привет, мир! Съешь ещё этих мягких булок. Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم ٤٥٦",
        "你好，世界！今天是2024年5月17日。 こんにちは、カタカナ、ひらがな。",
        "안녕하세요 세계 123개",
        "नमस्ते दुनिया हिन्दी สวัสดีชาวโลก ភាសាខ្មែរ தமிழ் বাংলা ქართული հայերեն አማርኛ",
        "🙂 👍🏽 👨‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️‍🔥 ☃️ ✓ → ∑∫√∞≠≤ ₿€£¥ © ™ … — – “quotes” ‘single’ «guillemets» „low“",
        "\u0001\u0002\u007f control, \ufeff mark, \U0001f9d1\u200d\U0001f680 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𓀀",
        "a\u0000b \u001b[31mred\u001b[0m \u0008 line\u2028paragraph\u2029 \u200eltr\u200f soft\u00adhyphen \ufffd",
        "tab\u000bvertical form\u000cfeed",
    ]  # fmt: skip
