"""Terminal-safe text shows the control characters of strangers instead of sending them.

A name, a URI, a message or a log line may come from anybody who can reach the API. A terminal that
is sent its escape sequences would move the cursor over other lines, change its title, or send text
back as if it were typed (CVE-2003-0063 and its kind).
"""

import re

# Colours may hide text as well; they are left out rather than shown, since logs are full of them.
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
# C0 without tab and line feed, DEL, C1, and what reverses or breaks lines in Unicode.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[{_CONTROLS}]")
_UNSAFE_IN_LINE = re.compile(f"[{_CONTROLS}\t\n]")
_LAST_BYTE = 0xFF
_NAMED = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def terminal_safe(text: str) -> str:
    """Return a text of several lines without colours, its control characters as escapes."""
    return text if text.isprintable() else _UNSAFE.sub(_escape, _COLOURS.sub("", text))


def terminal_safe_line(text: str) -> str:
    """Return a text as one line; tabs and line feeds become escapes, too."""
    return text if text.isprintable() else _UNSAFE_IN_LINE.sub(_escape, _COLOURS.sub("", text))


def terminal_safe_json(data: bytes) -> bytes:
    """Return JSON in which no control character is left; encoders escape only those below 32."""
    text = data.decode()
    return data if text.isprintable() else _UNSAFE.sub(_escape_json, text).encode()


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    short = number <= _LAST_BYTE
    return _NAMED.get(character) or (f"\\x{number:02x}" if short else f"\\u{number:04x}")


def _escape_json(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
