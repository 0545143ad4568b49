"""Errors as problems: the table is total and says what the contract says."""

import json

import pytest

from mien import errors
from mien.server.problems import MEDIA_TYPE, Overloaded, explanations, problem, status_of

CONTRACT = {  # the design page, section 3
    errors.InputError: 422,
    errors.UnreadableImage: 415,
    errors.ImageTooLarge: 413,
    errors.NoFaceFound: 422,
    errors.SeveralFacesFound: 422,
    errors.LowQuality: 422,
    errors.ModelError: 503,
    errors.UnknownModel: 503,
    errors.CorruptWeights: 503,
    errors.FetchFailed: 503,
    errors.LicenceNotAccepted: 503,
    errors.NoOperatingPoint: 503,
    errors.MissingExtra: 503,
    errors.GalleryError: 409,
    errors.UnknownSubject: 404,
    errors.ContractMismatch: 409,
    errors.GalleryUnavailable: 503,
    errors.GalleryDamaged: 409,
}


def all_errors() -> set[type[errors.MienError]]:
    return {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MienError)
    } - {errors.MienError}


def test_every_error_has_its_status() -> None:
    assert {kind: status_of(kind) for kind in all_errors()} == CONTRACT


def test_a_problem_names_the_class_and_carries_the_facts() -> None:
    reply = problem(errors.SeveralFacesFound("party.jpg", 3))
    body = json.loads(reply.body)
    assert reply.media_type == MEDIA_TYPE
    assert reply.status_code == body["status"] == 422
    assert body["type"] == "/problems/SeveralFacesFound"
    assert (body["count"], body["source"]) == (3, "party.jpg")
    assert "3 faces" in body["detail"]


@pytest.mark.parametrize(
    "error",
    [
        errors.GalleryUnavailable("/srv/private/people.mien", "the disk is full"),
        errors.CorruptWeights("/srv/private/model.onnx", "the file is missing"),
    ],
)
def test_files_of_the_server_are_not_told(error: errors.MienError) -> None:
    body = bytes(problem(error).body).decode()
    assert "private" not in body
    assert error.reason in body


def test_a_refusal_says_when_to_come_back() -> None:
    reply = problem(Overloaded("busy", {"Retry-After": "1"}))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


def test_every_error_is_explained() -> None:
    assert {kind.__name__ for kind in all_errors()} <= explanations().keys()
    assert all(explanations().values())
