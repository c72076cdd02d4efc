package broker

import "telemetryhub/hub/access"

// MayPublish and MaySubscribe ask what an identity may. The hub itself is told by local.
func MayPublish(id access.Identity, local bool, topic string) bool {
	return validTopic(topic) && grant{id, local}.publish(topic)
}

func MaySubscribe(id access.Identity, local bool, filter string) bool {
	inner, _ := splitShare(filter)
	return validFilter(filter) && validFilter(inner) && grant{id, local}.subscribe(inner)
}

// Matches tells whether the filter matches the topic.
func Matches(filter, topic string) bool { return matches(filter, topic) }
