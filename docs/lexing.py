"""Python's lexer of Pygments, with most of a line told apart in one go.

Pygments tries some fifty patterns at each name, blank and sign: a quarter of the time that the site takes.
Here one pattern takes a run of all that is plain: names and words, blanks, signs, whole numbers, strings without
anything in them. The rest is left to the patterns of Pygments, and the tokens are the same."""
import re

from pygments.lexer import words
from pygments.lexers.python import PythonLexer
from pygments.token import Name, Number, Operator, Punctuation, String, Text

PLAIN = r"""(?x:(?!^)[ \t]+                     # no indentation, which may be a docstring's
  | (?!(?:def|class|from|import|lazy|match|case|async|await|yield|print)\b|__)[A-Za-z_][A-Za-z0-9_]*(?![\w"'])
  | (?:0|[1-9][0-9]*)(?![\w.])
  | !=|==|<<|>>|:=|[-~+/*%=<>&^|]|\.(?![0-9])
  | []{}:(),;[]
  | "(?!"")[^"'\\%{\n]*" | '(?!'')[^'"\\%{\n]*')"""
RULES = PythonLexer.tokens
WORDS = {word: kind for state in ("builtins", "expr-keywords", "keywords") for rule, kind in RULES[state]
         if isinstance(rule, words) for word in rule.words}
WORDS |= dict.fromkeys(("in", "is", "and", "or", "not"), Operator.Word)
WORDS |= dict.fromkeys(("self", "Ellipsis", "NotImplemented", "cls"), Name.Builtin.Pseudo)

def kind_of(part, before):
    "The token of a piece that is no string, after some character."
    if part[0] in " \t": return Text
    if part in "[]{}:(),;": return Punctuation
    if part[0].isdigit(): return Number.Integer
    if not (part[0].isalpha() or part[0] == "_"): return Operator
    kind = WORDS.get(part, Name)
    return Name if before == "." and kind in Name else kind             # `x.max` is no builtin

def pieces(lexer, run, plain=re.compile(PLAIN, re.M)):
    "The tokens of a plain run."
    text = run.string
    for piece in plain.finditer(text, *run.span()):
        part, at = piece[0], piece.start()
        if part[0] not in "\"'": yield at, kind_of(part, text[at - 1:at]), part; continue
        kind = String.Double if part[0] == '"' else String.Single
        yield at, kind, part[0]
        if len(part) > 2: yield at + 1, kind, part[1:-1]
        yield at + len(part) - 1, kind, part[0]

class FastLexer(PythonLexer):
    "Python, by runs."
    tokens = RULES | {"root": [(f"(?:{PLAIN})+", pieces), *RULES["root"]]}
