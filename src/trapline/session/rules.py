"""The rules of a run: exceptions that must not be raised, and exceptions that must."""

from collections import Counter
from collections.abc import Callable, Sequence

from trapline.hypervisor.exception import Decision, InterceptedException, Verdict
from trapline.hypervisor.vcpu import Vcpu
from trapline.report.result import Violation
from trapline.trace.rules import Expectation, Rule

from .observing import ExceptionExit


class RuleObserver:
    """An observer (`hypervisor.observers.Observer`) that counts exceptions by rule."""

    def __init__(
        self,
        rules: Sequence[Rule],
        expectations: Sequence[Expectation],
        see: Callable[[Vcpu, InterceptedException], ExceptionExit],
        *,
        stops: bool,
    ) -> None:
        """`stops`: stop the guest at the first exception that one of `rules` names, before it is delivered."""
        self._rules, self._expectations = tuple(rules), tuple(expectations)
        self._see, self._stops = see, stops
        self._counts: Counter[Rule] = Counter()
        self._first: dict[Rule, str] = {}
        self.stopped = False
        """Whether it stopped the guest."""
        self.vectors = 0
        for rule in self._all():
            self.vectors |= rule.vectors

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Decision:
        """Count an exception for each rule that it matches."""
        seen = self._see(vcpu, exit)
        broken = False
        for rule in self._all():
            if rule.matches(seen):
                self._counts[rule] += 1
                if rule not in self._first:
                    self._first[rule] = str(seen)
                broken |= rule in self._rules
        self.stopped = broken and self._stops
        return Verdict.STOP if self.stopped else Verdict.FORWARD

    def violations(self) -> tuple[Violation, ...]:
        """Return the rules that were violated."""
        found = []
        for rule in self._rules:
            count = self._counts[rule]
            if count:
                times = "once" if count == 1 else f"{count:,} times, first"
                found.append(Violation(str(rule), f"raised {times}: {self._first[rule]}"))
        for expectation in self._expectations:
            count = self._counts[expectation.rule]
            if not expectation.met_by(count):
                found.append(Violation(str(expectation), expectation.describe(count)))
        return tuple(found)

    def _all(self) -> set[Rule]:
        return {*self._rules, *(expectation.rule for expectation in self._expectations)}
