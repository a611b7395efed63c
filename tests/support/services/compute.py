"""Stand-ins of Databricks and of Snowflake's SQL API."""

import base64
import hashlib
import re

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

DATABRICKS_TOKEN = "dapi-sesame"
DATABRICKS_HOST = "adb-1.2.azuredatabricks.net"
SNOWFLAKE_HOST = "shop.eu-west-1.snowflakecomputing.com"
_RUN = 455644833
_JOBS = re.compile(r"/api/2\.[0-2]/jobs/(.+)")
_HANDLE = "019c06a4-0000-df4f-0000-00100006589e"


class Databricks:
    """Runs jobs: https://docs.databricks.com/api/workspace/jobs"""

    def __init__(self):
        self._looks = 0

    def __call__(self, request):
        if request.headers.get("authorization") != f"Bearer {DATABRICKS_TOKEN}":
            return 403, {"error_code": "PERMISSION_DENIED", "message": "Invalid access token."}
        method, call = request.method, _JOBS.fullmatch(request.path).group(1)
        if (method, call) == ("POST", "runs/submit"):
            body = request.json()
            (task,) = body["tasks"]
            assert task["task_key"]
            assert {"notebook_task", "spark_python_task", "sql_task"} & task.keys()
            assert {"new_cluster", "existing_cluster_id"} & task.keys()
            return 200, {"run_id": _RUN}
        assert (method, call) == ("GET", "runs/get")
        assert request.query["run_id"] == str(_RUN)
        self._looks += 1
        state = {"life_cycle_state": "RUNNING", "state_message": ""}
        if self._looks > 2:
            state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
        page = f"https://{request.host}/#job/1/run/{_RUN}"
        return 200, {"run_id": _RUN, "job_id": 1, "state": state, "run_page_url": page, "tasks": []}


class Snowflake:
    """Runs statements: https://docs.snowflake.com/en/developer-guide/sql-api/reference

    Attributes:
        key: The private key of the user ANN, in PEM.
    """

    def __init__(self):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
        self.key = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
        self._public = key.public_key()
        self._looks = 0

    def __call__(self, request):
        self._check_token(request)
        if (request.method, request.path) == ("POST", "/api/v2/statements"):
            body = request.json()
            assert body["statement"]
            assert body["warehouse"] == "LOADING"
            assert request.query["async"].lower() == "true"
            return 202, {
                "code": "333334",
                "message": "Asynchronous execution in progress.",
                "statementHandle": _HANDLE,
                "statementStatusUrl": f"/api/v2/statements/{_HANDLE}",
            }
        assert (request.method, request.path) == ("GET", f"/api/v2/statements/{_HANDLE}")
        self._looks += 1
        if self._looks == 1:
            return 202, {"code": "333334", "message": "in progress", "statementHandle": _HANDLE}
        return 200, {
            "code": "090001",
            "sqlState": "00000",
            "message": "Statement executed successfully.",
            "statementHandle": _HANDLE,
            "data": [["3"]],
        }

    def _check_token(self, request):
        """https://docs.snowflake.com/en/developer-guide/sql-api/authenticating"""
        headers = request.headers
        assert headers["x-snowflake-authorization-token-type"] == "KEYPAIR_JWT"
        token = headers["authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, self._public, algorithms=["RS256"])
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        raw = self._public.public_bytes(serialization.Encoding.DER, form)
        print_ = base64.b64encode(hashlib.sha256(raw).digest()).decode()
        assert claims["sub"] == "SHOP.ANN"
        assert claims["iss"] == f"SHOP.ANN.SHA256:{print_}"
