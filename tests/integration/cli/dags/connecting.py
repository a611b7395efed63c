"""The example of docs/connections.md."""

from pubsubflow import Context, dag, task


@dag
def copy_out():
    @task
    def where(ctx: Context) -> str:
        warehouse = ctx.connection("warehouse")
        print("connecting to", warehouse.url)  # the log says postgres://ann:***@db.example.com…
        return f"{warehouse.host}/{warehouse.path} as {warehouse.user}"

    where()
