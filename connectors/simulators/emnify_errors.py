"""emnify's error bodies."""

from pydantic import ValidationError
from starlette.responses import JSONResponse


def too_many() -> JSONResponse:
    """Refuse what exceeds a limit."""
    return error(429, 1105, "TooManyRequests", "Too many requests")


def error(status: int, code: int, token: str, message: str) -> JSONResponse:
    """Answer as the application does; the gateway in front has another form."""
    return JSONResponse({"error_code": code, "error_token": token, "message": message}, status)


def invalid(wrong: ValidationError) -> JSONResponse:
    """Name each field that is wrong."""
    faults = [
        {
            "error_code": 1402 if fault["type"] == "missing" else 1403,
            "error_token": "Required" if fault["type"] == "missing" else "InvalidFormat",
            "message": f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}",
        }
        for fault in wrong.errors(include_input=False, include_url=False)
    ]
    body = {"error_code": 1400, "error_token": "InputValidationFailed", "message": "Input validation failed"}
    return JSONResponse(body | {"errors": faults}, 422)
