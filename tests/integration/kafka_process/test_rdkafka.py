"""The trade on three brokers through librdkafka, while one of them dies or hangs."""

from tests.integration.kafka_process import test_trade


class RdTradeTests(test_trade.TradeTests):
    scheme = "rdkafka"


class RdHangTests(test_trade.HangTests):
    scheme = "rdkafka"
