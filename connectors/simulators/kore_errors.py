"""KORE's error envelope. Codes quote docs.korewireless.com/errors; that they come with 400 is inferred."""

from starlette.responses import JSONResponse

UNKNOWN_PARAMETERS = 20001
ACCESS_DENIED = 20006
THROTTLED = 20429
INTERNAL = 20500
UNAVAILABLE = 20503
INVALID_VALUE = 83600
NOT_ON_DAY = 83601
NOT_ON_HOUR = 83602
TOO_LONG_FOR_GROUP_SIM = 83603
TOO_LONG_FOR_GRANULARITY = 83604
BEYOND_RETENTION = 83605


class KoreError(Exception):
    """A request that KORE answers with its error envelope; `code` and `more_info` are conditional."""

    def __init__(self, message: str, code: int | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status

    def response(self) -> JSONResponse:
        body: dict[str, object] = {"status": self.status, "message": self.message}
        if self.code is not None:
            body |= {"code": self.code, "more_info": f"https://docs.korewireless.com/errors/{self.code}"}
        return JSONResponse(body, self.status)
