"""What in the text of a migration breaks daemons of earlier versions."""

import re

_SET_ASIDE = re.compile(r"--[^\n]*|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'", re.DOTALL)
_COLUMN = re.compile(
    r"\bADD (?:COLUMN )?(?!CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE)", re.IGNORECASE
)
_BREAKS = re.compile(
    r"^(?:DROP|TRUNCATE|DELETE|ALTER (?:SEQUENCE|TYPE|VIEW|FUNCTION|INDEX))\b"
    r"|^ALTER TABLE .*\b(?:DROP|RENAME|TYPE|SET NOT NULL|SET SCHEMA|DETACH"
    r"|ADD (?:CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE))\b",
    re.IGNORECASE,
)
_UNIQUE_INDEX = re.compile(r"^CREATE UNIQUE INDEX .*? ON (?:ONLY )?(\w+)", re.IGNORECASE)
_NEW_TABLE = re.compile(r"^CREATE TABLE (?:IF NOT EXISTS )?(\w+)", re.IGNORECASE)


def breaking_statements(text: str) -> list[str]:
    """Return the statements by which daemons of before would fail, beginnings only."""
    plain = _SET_ASIDE.sub(lambda found: "''" if found[0][0] == "'" else " ", text)
    statements = [" ".join(each.split()) for each in plain.split(";")]
    made = {found[1] for each in statements if (found := _NEW_TABLE.match(each))}
    return [each[:80] for each in statements if _breaks(each, made)]


def _breaks(statement: str, made: set[str]) -> bool:
    unique = _UNIQUE_INDEX.match(statement)
    if unique is not None:
        return unique[1] not in made
    if _BREAKS.match(statement):
        return True
    # What they insert has no value for a column that they do not know.
    added = _COLUMN.split(statement)[1:] if statement.upper().startswith("ALTER TABLE") else []
    required = (each.upper() for each in added)
    return any("NOT NULL" in each and "DEFAULT" not in each for each in required)
