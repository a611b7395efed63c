"""HTTP client of a whole daemon."""


class DaemonClient:
    def __init__(self, url, session):
        self.url = url
        self.session = session

    async def post(self, path, body, **headers):
        async with self.session.post(self.url + path, json=body, headers=headers) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def emit(self, dataset, **headers):
        return await self.post("/api/v1/datasets/events", {"dataset": dataset}, **headers)

    async def text(self, path, *, status=200, **headers):
        async with self.session.get(self.url + path, headers=headers) as response:
            assert response.status == status
            return await response.text(), response.headers["Content-Type"]
