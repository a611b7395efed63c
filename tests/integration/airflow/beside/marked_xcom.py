"""A backend for XComs of a team's own, for both sides: it marks the values of one DAG."""

from airflow.sdk.bases.xcom import BaseXCom

DAG_ID = "backend"
MARK = "marked by the backend"


class MarkedXCom(BaseXCom):
    @staticmethod
    def serialize_value(value, *, dag_id=None, **_):
        return BaseXCom.serialize_value({MARK: value} if dag_id == DAG_ID else value)

    @staticmethod
    def deserialize_value(result):
        value = BaseXCom.deserialize_value(result)
        return value[MARK] if isinstance(value, dict) and MARK in value else value
