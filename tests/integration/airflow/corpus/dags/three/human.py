from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLBranchOperator, HITLEntryOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param

with DAG("human_3", schedule=None):
    ask = ApprovalOperator(task_id="approve", subject="Deploy?", defaults="Reject")
    choose = HITLBranchOperator(task_id="choose", subject="Which?", options=["left", "right"])
    enter = HITLEntryOperator(task_id="enter", subject="Say", params={"text": Param("", type="string")})
    ask >> choose >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")]
