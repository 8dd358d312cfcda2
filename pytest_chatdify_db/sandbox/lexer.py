"""Cutting a query text into statements and tokens, as PostgreSQL's own lexer does (section 4.1 of the manual).

The rule: texts are bytes seen as Latin-1, which keeps every offset and every byte of an ASCII-compatible encoding; and
megabytes of literals are passed over by one regular expression, not token by token.

A group that is repeated possessively is an atomic one, ``(?>...)*+``: up to Python 3.11.4 any other, where it matches
in part and fails, leaves the position behind that part (python/cpython, gh-100061).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

#: Bytes of the longest name (NAMEDATALEN - 1).
NAME_LENGTH = 63
SPACE = r"[ \t\n\r\f\v]+"
NAME = r"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*"
#: What two parts of one string constant may stand apart by: it holds a line break (4.1.2.1).
_GAP = r"(?>[ \t\f\v]|--[^\r\n]*+)*+[\r\n](?>[ \t\n\r\f\v]|--[^\r\n]*+[\r\n])*+"
#: The inside of a string constant. One with escapes has them in all its parts, though only the first has the letter.
_ESCAPED = rf"[^'\\]*+(?>(?:\\.|'(?:{_GAP})?')[^'\\]*+)*+"
_PLAIN = rf"[^']*+(?>'(?:{_GAP})?'[^']*+)*+"
#: What may follow a string or name with U&: the character that escapes in it.
_UESCAPE = r"(?>[ \t\n\r\f\v]|--[^\r\n]*+[\r\n])*+uescape[ \t\n\r\f\v]*+'([^'])'"


@cache
def _token(plain: str) -> re.Pattern[str]:
    """Return what finds a token, where *plain* is the inside of a string without a letter in front."""
    return re.compile(
        rf"""
    (?P<space>{SPACE}|--[^\r\n]*)
  | (?P<comment>/\*)
  | (?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$)
  | (?P<escape>[eE]'{_ESCAPED}(?:'|\Z|\\\Z))
  | (?P<unicode>[uU]&(?:'{_PLAIN}(?:'|\Z)|"[^"]*+(?>""[^"]*+)*+(?:"|\Z))(?i:{_UESCAPE})?)
  | (?P<string>[bBxXnN]?'{plain}(?:'|\Z))
  | (?P<quoted>"[^"]*+(?>""[^"]*+)*+(?:"|\Z))
  | (?P<name>{NAME})
  | (?P<param>\$[0-9]+)
  | (?P<number>[0-9][0-9A-Za-z_.]*)
  | (?P<symbol>.)
    """,
        re.VERBOSE | re.DOTALL,
    )


_TOKEN = _token(_PLAIN)
_PAIR = re.compile(r"\\.", re.DOTALL)
_QUOTES = re.compile(rf"'(?:{_GAP})?'")
_ESCAPE = re.compile(
    rf"\\(?:u([0-9A-Fa-f]{{4}})|U([0-9A-Fa-f]{{8}})|x([0-9A-Fa-f]{{1,2}})|([0-7]{{1,3}})|(.))|{_QUOTES.pattern}",
    re.DOTALL,
)
_UNICODE = re.compile(rf"u&(['\"])(.*?)\1(?:{_UESCAPE})?", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"[0-9A-Fa-f]{4,6}")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_WORD = re.compile(NAME)
_LEAD = re.compile(rf"(?:{SPACE}|--[^\r\n]*(?:[\r\n]|\Z))*({NAME})?", re.DOTALL)
#: A name is tried where a word begins, and whole: megabytes of hexadecimal digits would else take for ever.
_CALL = re.compile(rf"(?<![A-Za-z0-9_$\x80-\xff])({NAME}+)\"?[ \t\n\r]*\(")
#: What may hold semicolons that end no statement: function bodies in SQL, and the actions of a rule.
_COMPOUND = re.compile(r"\bbegin\s+atomic\b|\brule\b", re.IGNORECASE)
#: As much of a text as holds no semicolon, dollar quote or comment. One call covers megabytes of literals.
_RUN = re.compile(
    rf"""(?>
        [^'"$;/\-0-9A-Za-z_\x80-\xff]++
      | [0-9][0-9A-Za-z_.]*+
      | [eE]'{_ESCAPED}'
      | '[^']*+(?>''[^']*+)*+'
      | "[^"]*+(?>""[^"]*+)*+"
      | (?![eE]')[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+
      | --[^\r\n]*+
      | -(?!-) | /(?!\*)
      | \$[0-9]++
    )*+""",
    re.VERBOSE | re.DOTALL,
)
_NOISE = re.compile(
    rf"""[eE]'{_ESCAPED}'|'[^']*+(?>''[^']*+)*+'|"[^"]*+(?>""[^"]*+)*+\"|--[^\r\n]*+""",
    re.DOTALL,
)
#: The same with names in the first group; a text may end in the middle of a string.
_CONSTANT = re.compile(
    rf"""("[^"]*+(?>""[^"]*+)*+(?:"|\Z))|[eE]'{_ESCAPED}(?:'|\Z|\\\Z)|'[^']*+(?>''[^']*+)*+(?:'|\Z)|--[^\r\n]*+""",
    re.DOTALL,
)
#: What one expression cannot pass over: comments nest, and a dollar quote ends with itself.
_NESTING = re.compile(r"/\*|\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$")


class Token(NamedTuple):
    """A word, quoted name, literal or symbol, and where it stands."""

    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The token in the form keywords are compared in."""
        return self.text.lower()

    @property
    def identifier(self) -> str:
        """The token as an identifier: folded to lower case, or unquoted."""
        if self.text.startswith('"'):
            return self.text[1:-1].replace('""', '"')
        return _unicode(self.text) if self.text[1:2] == "&" else folded(self.text)

    @property
    def name(self) -> str:
        """What it names: the server takes as much of an identifier as a name can be long."""
        return cut(self.identifier)

    @property
    def is_constant(self) -> bool:
        """Whether it is a string constant of any kind."""
        first = self.text.lstrip("eEbBxXnNuU&")[:1]
        return first == "'" or (first == "$" and not self.text[1:].isdigit())

    @property
    def literal(self) -> str:
        """The token as a string constant without its quotes."""
        if self.text[1:2] == "&":
            return _unicode(self.text)
        if self.text.startswith("$") and (end := self.text.find("$", 1)) > 0:
            quote = self.text[: end + 1]
            return self.text.removeprefix(quote).removesuffix(quote)
        body = self.text.lstrip("eEnN")
        if not body.startswith("'"):
            return self.text
        inside = body[1:-1]
        return _ESCAPE.sub(_unescaped, inside) if self.text[0] in "eE" else _QUOTES.sub(_joined, inside)


def folded(identifier: str) -> str:
    """Return an *identifier* without quotes as the server folds it: bytes of UTF-8 are no capital letters."""
    return identifier.lower() if identifier.isascii() else identifier.encode("latin-1").lower().decode("latin-1")


def cut(identifier: str) -> str:
    """Return the name that an *identifier* stands for: of a character none or all of its bytes, which are UTF-8."""
    if len(identifier) <= NAME_LENGTH:
        return identifier
    whole = identifier[:NAME_LENGTH].encode("latin-1").decode("utf-8", "ignore")
    return whole.encode().decode("latin-1")


def leading_name(text: str) -> str | None:
    """Return the name that *text* begins with, behind simple comments; None if something else comes first."""
    lead = _LEAD.match(text)
    assert lead is not None  # every part of the pattern is optional
    return lead.group(1)


def tokens(text: str, pattern: re.Pattern[str] = _TOKEN) -> Iterator[Token]:
    """Yield the tokens of *text*, white space and comments left out.

    Block comments nest, and a dollar-quoted string is one token (PostgreSQL 18, sections 4.1.2.4 and 4.1.5).
    """
    position, end = 0, len(text)
    while position < end:
        found = pattern.match(text, position)
        assert found is not None  # the last alternative takes any character
        stop, group = found.end(), found.lastgroup
        if group == "comment":
            stop = _comment_end(text, stop)
        elif group == "dollar":
            close = text.find(found.group(), stop)
            stop = end if close < 0 else close + len(found.group())
        if group not in {"space", "comment"}:
            yield Token(text[position:stop], position, stop)
        position = stop


def _comment_end(text: str, position: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, position)
        if edge is None:
            return len(text)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def split(text: str) -> Iterator[str]:
    """Yield the statements of *text* without their semicolons, white space and comments included."""
    if ";" not in text:
        yield text
        return
    start = 0
    for end in _ends_compound(text) if is_compound(text) else ends(text):
        yield text[start:end]
        start = end + 1
    yield text[start:]


def is_compound(text: str) -> bool:
    """Return whether *text* may have semicolons that end no statement."""
    return _COMPOUND.search(text) is not None


def ends(text: str) -> Iterator[int]:
    """Yield the offset of each semicolon that ends a statement."""
    position, end = 0, len(text)
    while position < end:
        run = _RUN.match(text, position)
        assert run is not None  # it may be empty
        position = run.end()
        symbol = text[position : position + 1]
        if symbol == ";":
            yield position
            position += 1
        elif symbol == "/":
            position = _comment_end(text, position + 2)
        elif symbol == "$" and (dollar := _DOLLAR.match(text, position)):
            close = text.find(dollar.group(), dollar.end())
            position = end if close < 0 else close + len(dollar.group())
        elif symbol in {"'", '"'} or (symbol in {"e", "E"} and text[position + 1 : position + 2] == "'"):
            return  # not terminated: the server will say so
        else:
            position += 1


def _ends_compound(text: str) -> Iterator[int]:
    """Do the same for a text in which parentheses or BEGIN ATOMIC ... END may hold semicolons (RULE, FUNCTION)."""
    depth = body = 0
    previous = ""
    for token in tokens(text):
        word = token.word
        if word in {"(", ")"}:
            depth += 1 if word == "(" else -1
        elif word == ";" and depth <= 0 and not body:
            yield token.start
            depth = 0
        elif previous in {"as", "."}:
            pass  # a name, whatever word it is
        elif (word == "atomic" and previous == "begin") or (body and word == "case"):
            body += 1
        elif body and word == "end":
            body -= 1
        previous = word


def arguments(text: str, function: str) -> Iterator[list[list[Token]]]:
    """Yield the arguments of each call of *function* in *text*: of each the first two tokens, which tell what it is."""
    calls: list[tuple[bool, list[list[Token]]]] = []  # that are not closed yet, and other parentheses
    previous = ""
    for token in tokens(text):
        if token.text == ")":
            is_one, given = calls.pop() if calls else (False, [])
            if is_one:
                yield given
        elif token.text == "," and calls:
            calls[-1][1].append([])
        elif calls and len(calls[-1][1][-1]) < 2:
            calls[-1][1][-1].append(token)
        if token.text == "(":
            calls.append((previous == function, [[]]))
        previous = token.name


def called(text: str) -> frozenset[str]:
    """Return the names that an opening parenthesis follows: every function called directly, and some more."""
    return frozenset(map(folded, _CALL.findall(text)))


def text_of(seen: str, encoding: str = "UTF8") -> str:
    """Return as text what was seen byte by byte, in an *encoding* by the server's name of it."""
    if seen.isascii():
        return seen
    codec = encoding.replace("WIN", "cp").replace("KOI8", "koi8_")
    try:
        return seen.encode("latin-1").decode(codec, "replace")
    except LookupError:  # one that Python does not know, or none
        return seen


def exactly(seen: str) -> str:
    """Return as text, for a message, what was seen byte by byte: in any encoding, it is sent as it came."""
    return seen.encode("latin-1").decode("utf-8", "surrogateescape")


def without_escapes(text: str) -> str:
    """Return *text* with something else in place of all that a backslash escapes in its plain strings."""
    parts, at = [], 0
    for token in tokens(text, _token(_ESCAPED)):
        if token.text[0] == "'":
            parts += [text[at : token.start], _PAIR.sub("__", token.text)]
            at = token.end
    return "".join([*parts, text[at:]])


def words(text: str) -> frozenset[str]:
    """Return every name in *text*, in lower case; those in literals and comments too."""
    return frozenset(map(folded, _WORD.findall(text)))


def bare(text: str) -> str:
    """Return *text* without its literals, quoted names and comments."""
    if _NESTING.search(text):
        return " ".join(token.text for token in tokens(text) if _WORD.fullmatch(token.text))
    return _NOISE.sub(" ", text)


def code(text: str) -> str:
    """Return *text* without its string constants and comments."""
    if _NESTING.search(text):
        return " ".join(token.text for token in tokens(text) if not token.is_constant)
    return _CONSTANT.sub(lambda found: found[1] or " ", text)


def _joined(quotes: re.Match[str]) -> str:
    """Return what is meant by two quotes inside a string: one, or nothing where two parts of it meet."""
    return "'" if quotes[0] == "''" else ""


def _unescaped(escape: re.Match[str]) -> str:
    if escape[0][0] == "'":
        return _joined(escape)
    short, long, byte, octal, letter = escape.groups()
    if short or long:
        return _utf8(int(short or long, 16))
    if byte or octal:
        return chr(int(byte, 16) if byte else int(octal, 8) & 0xFF)
    return str({"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(letter, letter))


def _utf8(code_point: int) -> str:
    """Return a character as its bytes; one that there is not, which the server refuses, as any."""
    return chr(min(code_point, sys.maxunicode)).encode("utf-8", "replace").decode("latin-1")


def _unicode(text: str) -> str:
    """Return what a string or name with U& stands for (4.1.2.3)."""
    found = _UNICODE.fullmatch(text)
    if found is None:
        return text  # not terminated: the server will say so
    quote, inside, escape = found.groups()
    inside = inside.replace('""', '"') if quote == '"' else _QUOTES.sub(_joined, inside)
    mark = re.escape(escape or "\\")
    return re.sub(rf"{mark}{mark}|(?:{mark}(?:\+[0-9A-Fa-f]{{6}}|[0-9A-Fa-f]{{4}}))+", _characters, inside)


def _characters(escapes: re.Match[str]) -> str:
    """Return the characters that *escapes* name, of which two may be the halves of one, or the escape itself."""
    codes = [min(int(code, 16), 0x10FFFF) for code in _CODE.findall(escapes[0])]
    if not codes:
        return escapes[0][0]
    halves = "".join(map(chr, codes)).encode("utf-16", "surrogatepass")
    return halves.decode("utf-16", "replace").encode().decode("latin-1")
