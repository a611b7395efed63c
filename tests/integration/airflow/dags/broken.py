"""A dag of airflow that cannot be imported."""

from airflow.providers.nowhere import Operator
