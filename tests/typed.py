"""What a user may type, for property tests: characters of many kinds.

Given as a list: Hypothesis's tables of all of Unicode take each process seconds to build.
"""

CHARACTERS = [*map(chr, range(128)), *"\x80\xa0\xadßéΩ١中あ\u2028\ufeff\ufffd\U0001f600"]
PRINTED = [character for character in CHARACTERS if character.isprintable() and not character.isspace()]
