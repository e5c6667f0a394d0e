"""What ``run-task new --template`` says of each broker: how to read from it, and how to try it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from run_task.cli._rows_from import RowsFrom


@dataclass(frozen=True)
class BrokerTexts:
    """What a project says of a broker. In these texts, ``$name`` stands for the project's name, and
    so on, as in the files of the template.

    :param called: its name, in a sentence
    :param source: the source, as an expression
    :param default: its address on this machine
    :param settings: the constants that both programs have
    :param imports: what the producer imports
    :param producer: the function of the producer that sends
    :param image: the image of the broker, and, below it, what else compose is told of it
    :param in_network: its address for other containers
    :param secrets: where passwords belong
    :param journal: whether rows that came are kept by the pipeline itself, and not by the broker
    """

    called: str
    source: str
    default: str
    settings: str
    imports: str
    producer: str
    image: str
    in_network: str
    secrets: str = "`{source}(..., username=..., password_file=...)` reads one from a file."
    journal: bool = False


_CHECK: Final = (
    "run-task check pipeline.py    # what the pipeline is made of, and what is wrong with it\n"
)
_PRODUCER_FIRST: Final = (
    "python producer.py            # sends readings, ten a second, until Ctrl-C\n"
    + _CHECK
    + "run-task run pipeline.py      # live, until Ctrl-C, in another terminal"
)
"""It makes the stream or the topic, where there has to be one."""

_PIPELINE_FIRST: Final = (
    _CHECK + "run-task run pipeline.py      # live, until Ctrl-C\n"
    "python producer.py            # sends readings, ten a second, in another terminal"
)

_BROKERS: Final[Mapping[RowsFrom, BrokerTexts]] = {
    RowsFrom.NATS: BrokerTexts(
        called="a stream of NATS JetStream",
        source="NatsSource(\n"
        '    SUBJECT, BROKER, stream=STREAM, start="earliest", declare=SETTINGS, timestamp="time"\n'
        ")",
        default="nats://localhost:4222",
        settings='STREAM, SUBJECT = "$stream", "$stream.readings"\n'
        'SETTINGS = {"max_age": 24 * 3600}  # of the stream, which whoever comes first makes\n',
        imports="\n\nimport nats\nfrom nats.js.errors import BadRequestError",
        producer="""async def publish(count: float) -> None:
    client = await nats.connect(BROKER)
    stream = client.jetstream()
    try:
        await stream.add_stream(name=STREAM, subjects=[SUBJECT], **SETTINGS)
    except BadRequestError:
        print(f"the stream {STREAM} is there, with other settings")
    for reading in readings(count):
        await stream.publish(SUBJECT, reading)
    await client.close()


def send(count: float) -> None:
    asyncio.run(publish(count))
""",
        image='nats:2\n    command: ["-js", "-sd", "/data"]\n    ports: ["4222:4222"]\n',
        in_network="nats://broker:4222",
    ),
    RowsFrom.MQTT: BrokerTexts(
        called="an MQTT broker",
        source='MqttSource(TOPIC, BROKER, client_id="$name", timestamp="time")',
        default="mqtt://localhost:1883",
        settings='TOPIC = "$name/readings"\n',
        imports="\nfrom urllib.parse import urlsplit\n\nimport paho.mqtt.client as paho\n"
        "from paho.mqtt.enums import CallbackAPIVersion",
        producer="""def send(count: float) -> None:
    address = urlsplit(BROKER)
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(address.hostname or "localhost", address.port or 1883)
    client.loop_start()
    for reading in readings(count):
        client.publish(TOPIC, reading, qos=1).wait_for_publish()
    client.disconnect()
    client.loop_stop()
""",
        image="eclipse-mosquitto:2\n    command: mosquitto -c /mosquitto-no-auth.conf\n"
        '    ports: ["1883:1883"]\n',
        in_network="mqtt://broker:1883",
        journal=True,
    ),
    RowsFrom.KAFKA: BrokerTexts(
        called="a topic of Kafka",
        source='KafkaSource(TOPIC, servers=BROKER, start="earliest", timestamp="time")',
        default="localhost:9092",
        settings='TOPIC = "$name.readings"\n',
        imports="\n\nfrom confluent_kafka import Producer",
        producer="""def send(count: float) -> None:
    producer = Producer({"bootstrap.servers": BROKER})
    for reading in readings(count):
        producer.produce(TOPIC, reading)
        producer.poll(0)
    producer.flush()
""",
        image="apache/kafka:4.0.0\n    environment:\n"
        "      KAFKA_NODE_ID: 1\n"
        "      KAFKA_PROCESS_ROLES: broker,controller\n"
        '      KAFKA_CONTROLLER_QUORUM_VOTERS: "1@localhost:9093"\n'
        "      KAFKA_CONTROLLER_LISTENER_NAMES: CONTROLLER\n"
        '      KAFKA_LISTENERS: "PLAINTEXT://:19092,HOST://:9092,CONTROLLER://:9093"\n'
        '      KAFKA_ADVERTISED_LISTENERS: "PLAINTEXT://broker:19092,HOST://localhost:9092"\n'
        "      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: "
        '"PLAINTEXT:PLAINTEXT,HOST:PLAINTEXT,CONTROLLER:PLAINTEXT"\n'
        "      KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: 1\n"
        '    ports: ["9092:9092"]\n',
        in_network="broker:19092",
    ),
    RowsFrom.REDIS: BrokerTexts(
        called="a stream of Redis",
        source='RedisStreamSource(STREAM, BROKER, start="earliest", timestamp="time")',
        default="redis://localhost:6379",
        settings='STREAM = "$name.readings"\n',
        imports="\n\nimport redis",
        producer="""def send(count: float) -> None:
    client = redis.Redis.from_url(BROKER)
    for reading in readings(count):
        client.xadd(STREAM, {"data": reading}, maxlen=1_000_000)
    client.close()
""",
        image='redis:8\n    command: ["--appendonly", "yes"]\n    ports: ["6379:6379"]\n',
        in_network="redis://broker:6379",
    ),
    RowsFrom.HTTP: BrokerTexts(
        called="whoever sends them by HTTP",
        source="""HttpIngest(
    ADDRESS.hostname or "localhost",
    ADDRESS.port or 8080,
    token_env="TOKEN" if "TOKEN" in os.environ else None,
    timestamp="time",
    confirm=Confirm.KEPT,
)""",
        default="http://localhost:8080",
        settings="ADDRESS = urlsplit(BROKER)\n",
        imports="\nfrom http.client import HTTPConnection, HTTPException\n"
        "from urllib.parse import urlsplit",
        producer="""TOKEN = os.environ.get("TOKEN")


def send(count: float) -> None:
    for reading in readings(count):
        while not taken(reading):  # the pipeline is away, or has no room: it is to be sent again
            time.sleep(1)


def taken(reading: bytes) -> bool:
    headers = {"Content-Type": "application/json"}
    if TOKEN is not None:
        headers["Authorization"] = f"Bearer {TOKEN}"
    connection = HTTPConnection(ADDRESS.hostname or "localhost", ADDRESS.port or 8080, timeout=60)
    try:
        connection.request("POST", "/rows", reading, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, HTTPException) as error:
        print(f"it is sent again in a second: {error}", flush=True)
        return False
    finally:
        connection.close()
    if answer.status != 200:
        print(answer.status, text)
    return answer.status not in (429, 503)
""",
        image="",
        in_network="http://0.0.0.0:8080",
        secrets="`TOKEN`, of the environment, is what those have to bring who send.",
        journal=True,
    ),
}


def texts(kind: RowsFrom, name: str) -> dict[str, str]:
    """What stands for each name in the files of the template.

    :param kind: where rows come from
    :param name: the name of the project
    """
    broker = _BROKERS[kind]
    called = broker.source.partition("(")[0]
    is_http = kind is RowsFrom.HTTP
    service = f"  broker:\n    image: {broker.image}\n" if broker.image else ""
    app = "    depends_on: [broker]\n"
    if is_http:
        app = '      TOKEN: "${TOKEN:?}"\n    ports: ["8080:8080"]\n'
    own = {"name": name, "stream": re.sub(r"\W", "_", name, flags=re.ASCII)}
    address = f'BROKER = os.environ.get("BROKER", "{broker.default}")\n'
    imports = "Confirm, HttpIngest" if is_http else called
    given = {
        "broker": broker.called,
        "receiver": "the pipeline, by HTTP" if is_http else broker.called,
        "try_it": _PIPELINE_FIRST if is_http else _PRODUCER_FIRST,
        "source_class": imports,
        "source_imports": "\nfrom urllib.parse import urlsplit" if is_http else "",
        "first_import": "import asyncio\n" if kind is RowsFrom.NATS else "",
        "source": broker.source,
        "source_options": ', journal=DATA / "raw"' if broker.journal else "",
        "default": broker.default,
        "settings": (address + broker.settings).rstrip("\n"),
        "producer_imports": broker.imports,
        "producer": broker.producer,
        "compose_broker": service,
        "compose_app": app,
        "in_network": broker.in_network,
        "port": "8081" if is_http else "8080",  # where rows come by HTTP, they have the other
        "kept": ", and `data/raw` the readings that came since"
        if broker.journal
        else ", and the broker has the rest",
        "in_compose": "the pipeline" if is_http else "the broker and the pipeline",
        "start_broker": "# it needs no broker"
        if is_http
        else "docker compose up -d broker    # or a broker that is there already, by BROKER",
        "secrets": broker.secrets.format(source=called),
        "extra": f"{kind.value},arrow",  # which checkpoints need
    }
    return {**{key: _filled(text, own) for key, text in given.items()}, **own}


def _filled(text: str, own: Mapping[str, str]) -> str:
    for key, value in own.items():
        text = text.replace(f"${key}", value)
    return text
