echo {{ var.value.region }} {{ conn.sales.host }} {{ var.json.reach.rows }}
