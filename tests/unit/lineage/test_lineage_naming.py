"""The names of datasets: as the standard's own client names the same data."""

import pytest
from openlineage.client.naming import dataset as standard

from pubsubflow.lineage.naming import dataset_name


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("s3://lake/orders/2026", standard.S3("lake", "orders/2026")),
        ("s3a://lake/orders", standard.S3("lake", "orders")),
        ("gs://lake/orders", standard.GCS("lake", "orders")),
        ("hdfs://node:8020/data/orders", standard.HDFS("node", "8020", "/data/orders")),
        ("kafka://broker:9092/orders", standard.Kafka("broker", "9092", "orders")),
        ("kafka://broker/orders", standard.Kafka("broker", "9092", "orders")),
        (
            "postgres://reader@db/shop/public/orders",
            standard.Postgres("db", "5432", "shop", "public", "orders"),
        ),
        (
            "postgresql://db:6000/shop/public/orders",
            standard.Postgres("db", "6000", "shop", "public", "orders"),
        ),
        ("mysql://db/shop/orders", standard.MySQL("db", "3306", "shop", "orders")),
        ("bigquery://project/shop/orders", standard.BigQuery("project", "shop", "orders")),
        (
            "snowflake://org-account/shop/public/orders",
            standard.Snowflake("org", "account", "shop", "public", "orders"),
        ),
        (
            "abfss://box@account.dfs.core.windows.net/orders",
            standard.ABFSS("box", "account", "orders"),
        ),
        ("file:///data/orders", standard.LocalFileSystem("/data/orders")),
    ],
)
def test_names_are_those_of_the_standards_client(uri, named):
    name = dataset_name(uri)
    assert (name.namespace, name.name) == (named.get_namespace(), named.get_name())


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("s3://lake", "s3://lake", "/"),
        ("x://made", "x://made", "/"),
        ("https://shop.example/orders?page=1", "https://shop.example", "orders?page=1"),
        ("file://host/data", "file://host", "/data"),
        ("urn:orders:daily", "urn", "orders:daily"),
        ("mysql://[::1]/shop/orders", "mysql://[::1]:3306", "shop.orders"),
    ],
)
def test_other_uris_are_split_where_the_authority_ends(uri, namespace, name):
    found = dataset_name(uri)
    assert (found.namespace, found.name) == (namespace, name)
