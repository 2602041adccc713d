// Confluent's own client (kafka-rest 0.0.5), used as its README does: metadata, producing, consuming, committing, leaving. Prints what it saw as JSON.
"use strict";

var KafkaRest = require('kafka-rest');

var url = process.argv[2], authorization = process.argv[3], topicName = process.argv[4], group = process.argv[5];
var client = new KafkaRest({'url': url, 'headers': {'Authorization': authorization}});
var topic = client.topic(topicName);
var seen = {};

function call(owner, method) {
    var args = Array.prototype.slice.call(arguments, 2);
    return new Promise(function (resolve, reject) {
        owner[method].apply(owner, args.concat(function (err, res) { if (err) reject(err); else resolve(res); }));
    });
}

// Join the group, read until there are `count` messages, commit, leave.
function consume(count) {
    return call(client.consumer(group), 'join', {'format': 'binary', 'auto.offset.reset': 'smallest'}).then(function (instance) {
        return new Promise(function (resolve, reject) {
            var messages = [], stream = instance.subscribe(topicName, {'requestDelay': 50}), over = false;
            stream.on('error', reject);
            stream.on('data', function (some) {
                some.forEach(function (m) {
                    messages.push({'key': m.key && m.key.toString(), 'value': m.value && m.value.toString(), 'partition': m.partition, 'offset': m.offset});
                });
                if (over || messages.length < count) return;
                over = true;
                call(instance, 'commit').then(function (committed) {
                    return call(instance, 'shutdown').then(function () {
                        resolve({'id': instance.id, 'uri': instance.uri, 'messages': messages, 'committed': committed});
                    });
                }).catch(reject);
            });
        });
    });
}

call(client.brokers, 'list').then(function (brokers) {
    seen.brokers = brokers.map(function (b) { return b.id; });
    return call(client.topics, 'list');
}).then(function (topics) {
    seen.topics = topics.map(function (t) { return t.name; });
    return call(topic, 'get');
}).then(function () {
    seen.topic = topic.raw;
    return call(topic.partitions, 'list');
}).then(function (partitions) {
    seen.partitions = partitions.map(function (p) { return p.id; });
    return call(topic, 'produce', 'plain', {'key': 'k', 'value': 'keyed'}, {'partition': 1, 'value': 'placed'}, new Buffer('bytes'));
}).then(function (produced) {
    seen.produced = produced;
    return call(topic.partition(0), 'produce', 'to a partition');
}).then(function (produced) {
    seen.producedToPartition = produced;
    return consume(5);
}).then(function (first) {
    seen.first = first;
    return call(topic, 'produce', 'later');
}).then(function () {
    return consume(1);
}).then(function (second) {
    seen.second = second;
    return call(client.topic('nobody-knows-it'), 'get').then(function () { return null; }, function (err) { return {'status': err.status, 'code': err.data.error_code}; });
}).then(function (missing) {
    seen.missing = missing;
    console.log(JSON.stringify(seen));
}).catch(function (err) {
    console.error(err && err.stack || err, JSON.stringify(err && err.data));
    process.exit(1);
});
