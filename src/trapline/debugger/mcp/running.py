"""The tool `run`: a guest runs to its end, and the answer says why it ended so."""

from itertools import islice
from typing import Final

from trapline.report.result import Ending
from trapline.report.run import Run
from trapline.session.run import run_guest
from trapline.session.session import Session
from trapline.session.settings import read_options
from trapline.trace.questions.rows import rows
from trapline.trace.reading import Reading

from .answers import Place, Raised, RunAnswer, Why
from .guests import Access, Options, keywords
from .next_steps import next_steps
from .stored import Runs, Stored
from .threads import Work
from .told import callers, code_lines, counted, raised, tail, why

ENDS: Final = 8
"""How many of the first and of the last exceptions are shown."""


def run(
    work: Work, access: Access, runs: Runs, stored: Stored, exceptions: str, timeout: float, options: Options
) -> RunAnswer:
    """Run a guest and keep its trace. Raises TraplineError."""
    try:
        result = _result(work, access, stored, exceptions, timeout, options)
        work.check()
    except BaseException:
        runs.drop(stored)
        raise
    stored.document, stored.findings = dict(result.to_json()), list(result.findings)
    return _answer(stored, result, timeout, options)


def _result(work: Work, access: Access, stored: Stored, exceptions: str, timeout: float, options: Options) -> Run:
    name, chosen = keywords(access, stored.guest, options)
    chosen["exceptions"], chosen["output"], chosen["keep"] = exceptions, stored.path, 0
    settings, outlets = read_options(name, chosen)

    def opened(session: Session) -> None:
        work.interrupted_by(session.vm.interrupt)

    try:
        return run_guest(
            settings, outlets, timeout=timeout, rules=(), expectations=(), keep_going=False, stops=(), opened=opened
        )
    finally:
        work.interrupted_by(None)


def _answer(stored: Stored, result: Run, timeout: float, options: Options) -> RunAnswer:
    first = _first(stored.path)
    last = [raised(each, each.outcome) for each in result.last(ENDS) if not first or each.seq > first[-1].seq]
    whys = _whys(result)
    return RunAnswer(
        run=stored.number,
        guest=stored.guest,
        ending=result.ending.name.lower(),
        detail=result.detail or None,
        exit_code=result.exit_code,
        processor=result.processor,
        seconds=round(result.seconds, 3),
        cause=_cause(result, whys),
        why=whys,
        findings=list(result.findings),
        recorded=result.recorded,
        counts=counted(result.counts),
        first=first,
        last=last,
        where=_where(result),
        console=tail(result.console),
        console_size=len(result.console),
        screen=list(result.screen),
        notes=[*result.warnings, *result.hints],
        next=list(next_steps(stored, result, timeout, options)),
    )


def _first(path: str) -> list[Raised]:
    with Reading([path]) as records:
        return [raised(row, row.outcome) for row in islice(rows(records, at_once=ENDS), ENDS)]


def _whys(result: Run) -> list[Why]:
    found = []
    if result.explanation is not None:
        found.append(why("the triple fault", result.explanation))
    for each in result.unreturned:
        if each.explanation is not None:
            title = f"record {each.record.seq}, which the guest never came back from"
            found.append(why(title, each.explanation, each.record.seq))
    return found


def _cause(result: Run, whys: list[Why]) -> str | None:
    if result.ending is Ending.FAILED:
        return result.detail
    if whys:
        return whys[0].cause
    if result.findings:
        return result.findings[0]
    return None


def _where(result: Run) -> Place | None:
    crash = result.crash
    if crash is None:
        return None
    return Place(
        rip=f"{crash.address:#x}",
        place=None if crash.symbol is None else str(crash.symbol),
        code=code_lines(crash.code, crash.address),
        callers=callers(crash.callers),
    )
