from airflow.sdk import DAG, Asset, AssetAlias, Metadata, asset, task

orders = Asset("s3://lake/orders", group="lake", extra={"owner": "ann"})


@asset(schedule="@daily")
def raw_orders(context):
    return 1


@asset(schedule=orders & raw_orders, uri="s3://lake/joined")
def joined(orders):
    print(orders)


with DAG("emits_3", schedule=None):

    @task(outlets=[orders, AssetAlias("late")])
    def emit(*, outlet_events):
        outlet_events[orders].extra = {"rows": 2}
        yield Metadata(orders, extra={"rows": 3})

    emit()

with DAG("reads_3", schedule=[orders]):

    @task(inlets=[orders])
    def read(*, inlet_events, triggering_asset_events):
        print(inlet_events[orders], triggering_asset_events)

    read()
