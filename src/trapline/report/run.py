"""The result of a run, with checks for tests."""

from dataclasses import replace
from typing import Final, NamedTuple

from trapline.errors import GuestFailed, UsageError
from trapline.trace.exceptions import Exceptions, Selection
from trapline.trace.rules import Rule, check_forced, parse_expectation, parse_rule
from trapline.typed import printable

from .result import Result
from .text import ending_text, report

_CPLS: Final = range(4)


class _Found(NamedTuple):
    """How many of the recorded exceptions a test asks about: of those no longer in memory only vectors are known."""

    least: int
    most: int


class Run(Result):
    """The result of a run: a `Result` with checks for tests.

    The checks raise GuestFailed with a report of the run: the last exceptions, the context of the guest and the
    explanation. They raise UsageError for a text that is not a rule, for an exception that was not forced, and if the
    exceptions that would decide are no longer in memory, because more than `keep` were recorded.
    """

    def check(self) -> None:
        """Raise GuestFailed unless the guest ended well and violated no rule: unless `exit_code` is 0."""
        __tracebackhide__ = True
        if self.exit_code:
            raise GuestFailed(self._message(": ".join(filter(None, (ending_text(self), self._reason())))))

    def never(self, *rules: str) -> None:
        """Raise GuestFailed if an exception was recorded that one of the rules names.

        A rule is `[user:|kernel:|any:]VECTORS[@SYMBOL-PATTERN]`, such as `ud` or `kernel:gp@copy_*`. A rule that is
        given to `run` as `fail_on` stops the guest at that exception instead, and the run explains it.
        """
        __tracebackhide__ = True
        found = [(rule, self._count(rule)) for rule in map(parse_rule, rules)]
        for rule, _ in found:
            check_forced(str(rule), rule.vectors, self.forced)
        broken = [self._raised(rule, each) for rule, each in found if each.least]
        if broken:
            raise GuestFailed(self._message("\n".join(broken)))
        for rule, each in found:
            if each.most:
                raise self._undecided(str(rule), each)

    def expect(
        self, rule: str, *, count: int | None = None, cpl: int | None = None, at: str | None = None
    ) -> Exceptions:
        """Return the recorded exceptions that a rule names; raise GuestFailed unless there are `count`, or at least 1.

        The rule is one as for `never`, and may end with `=COUNT` instead. `cpl` is the privilege level at which they
        were raised, `at` a shell pattern for the function's name, such as `copy_user*`. Of very many exceptions those
        are returned that are still in memory.
        """
        __tracebackhide__ = True
        expected = parse_expectation(rule)
        check_forced(rule, expected.rule.vectors, self.forced)
        if count is not None:
            if expected.count is not None:
                raise UsageError(f"{rule!r} has a count already, and count={count} is another")
            expected = replace(expected, count=count)
        more: list[str | Selection] = []
        subject = str(expected.rule)
        if cpl is not None:
            if cpl not in _CPLS:
                raise UsageError(f"cpl={cpl}: privilege levels are 0 to 3")
            more.append(f"cpl == {cpl}")
            subject += f" with CPL {cpl}"
        if at is not None:
            more.append(Rule(expected.rule.vectors, pattern=at))
            subject += f" at {at}"
        found = self._count(expected.rule, *more)
        met = expected.met_between(found.least, found.most)
        if met is None:
            raise self._undecided(subject, found)
        if not met:
            raise GuestFailed(self._message(f"expected {expected.wanted} of {subject}, got {_number(found)}"))
        return self.exceptions.where(expected.rule, *more) if found.most else self.exceptions[:0]

    def _count(self, rule: Rule, *more: str | Selection) -> _Found:
        """Return how many exceptions a rule and further conditions name."""
        total = sum(row.times for row in self.counts if rule.vectors >> row.vector & 1)
        vectors = Rule(rule.vectors)
        if not total or (rule == vectors and not more):
            return _Found(total, total)
        least = int(self.exceptions.mask(rule, *more).sum())
        complete = self.recorded == len(self.exceptions)
        return _Found(least, least if complete else least + total - int(self.exceptions.mask(vectors).sum()))

    def _undecided(self, subject: str, found: _Found) -> UsageError:
        return UsageError(
            f"{subject} cannot be decided: {found.most - found.least:,} exceptions of these vectors are no longer in "
            f"memory; keep={self.recorded} keeps all, and fail_on and expect of `run` count while the guest runs"
        )

    def _raised(self, rule: Rule, found: _Found) -> str:
        """Return how often an exception that a rule names was raised, and the first one, or the first in memory."""
        times = "once" if found.most == 1 else f"{_number(found)} times, first"
        found_at = self.exceptions.mask(rule).nonzero()[0]
        if found_at.size:
            return f"{rule} was raised {times}: {self.exceptions[int(found_at[0])]}"
        row = next(row for row in self.counts if rule.vectors >> row.vector & 1)
        return f"{rule} was raised {times}: {row.vector.mnemonic} at {row.first.symbol or hex(row.first.rip)}"

    def _reason(self) -> str:
        """Return a sentence on why the run failed; empty: unknown."""
        if self.violations:
            return "; ".join(f"{violation.rule} {violation.message}" for violation in self.violations)
        if self.explanation is not None:
            return self.explanation.cause
        return self.detail.partition("\n")[0]

    def _message(self, first: str) -> str:
        return "\n".join([printable(first), "", *report(self)])


def _number(found: _Found) -> str:
    return f"{found.least:,}" if found.least == found.most else f"at least {found.least:,}"
