import logging

import pytest

from trapline.arch.vectors import FORCEABLE, VECTORS, bits
from trapline.errors import UsageError
from trapline.hypervisor.parameters import (
    ENVIRONMENT,
    ExceptionMaskParameter,
    force_intercept_exceptions_mask,
)
from trapline.hypervisor.vm import Vm
from trapline.machine.scripted import ScriptedProcessor

NAME = "TRAPLINE_TEST_MASK"


@pytest.fixture
def parameter(monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    return ExceptionMaskParameter(NAME)


@pytest.fixture
def process_wide(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    yield force_intercept_exceptions_mask
    force_intercept_exceptions_mask.clear()


def test_nothing_is_forced_unless_somebody_asks(parameter):
    assert parameter.get() == parameter.snapshot() == 0
    assert not parameter.is_set()


def test_it_is_writable(parameter):
    parameter.set(0x6040)
    assert parameter.get() == parameter.snapshot() == 0x6040
    assert parameter.is_set()
    parameter.set(0)
    assert parameter.get() == 0
    assert parameter.is_set()


@pytest.mark.parametrize(("text", "mask"), [("0x6040", 0x6040), ("64", 64), ("0b101", 5), (" 0x1 ", 1)])
def test_the_environment_speaks_until_it_is_written(parameter, monkeypatch, text, mask):
    monkeypatch.setenv(NAME, text)
    assert parameter.is_set()
    assert parameter.get() == mask
    parameter.set(0x20)
    assert parameter.get() == 0x20
    parameter.clear()
    assert parameter.get() == mask


@pytest.mark.parametrize("text", ["", "pf", "0xfffffffff", "-1", "1.5"])
def test_an_environment_that_is_no_mask_is_reported_in_words(parameter, monkeypatch, text):
    monkeypatch.setenv(NAME, text)
    with pytest.raises(UsageError, match=r"is not a number such as|is not a mask of 32"):
        parameter.snapshot()


@pytest.mark.parametrize("mask", [-1, 1 << 32])
def test_only_32_vectors_exist(parameter, mask):
    with pytest.raises(UsageError, match="not a mask of 32 exception vectors"):
        parameter.set(mask)
    assert not parameter.is_set()


def test_each_refused_vector_is_warned_of_once(parameter, caplog):
    refused = [row.vector for row in VECTORS if row.refused is not None]
    parameter.set(0xFFFF_FFFF)
    with caplog.at_level(logging.WARNING):
        assert parameter.snapshot() == FORCEABLE
        assert parameter.snapshot() == FORCEABLE
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == len(refused)
    for vector, text in zip(refused, texts, strict=True):
        assert f"(vector {vector})" in text
        assert VECTORS[vector].refused in text


def test_a_vector_that_comes_later_is_warned_of_then(parameter, caplog):
    for mask, warnings in ((1 << 2, 1), (1 << 2 | 1 << 31, 2), (1 << 31, 2)):
        parameter.set(mask)
        parameter.snapshot()
        assert len(caplog.records) == warnings


def test_a_vm_keeps_the_snapshot_it_was_created_with(process_wide):
    process_wide.set(0x40)
    early = Vm(ScriptedProcessor([]))
    process_wide.set(0x4000)
    late = Vm(ScriptedProcessor([]))
    assert (early.mask, late.mask) == (0x40, 0x4000)
    early.run()
    assert early.mask == 0x40


def test_the_environment_reaches_a_vm(process_wide, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, hex(0x6040))
    assert Vm(ScriptedProcessor([])).mask == 0x6040


def test_a_vm_with_a_mask_of_its_own_does_not_ask(process_wide):
    process_wide.set(0x6040)
    assert Vm(ScriptedProcessor([]), mask=0).mask == 0


def test_the_refused_vectors_of_the_parameter_are_dropped(process_wide):
    process_wide.set(0xFFFF_FFFF)
    assert list(bits(Vm(ScriptedProcessor([])).mask)) == list(bits(FORCEABLE))
