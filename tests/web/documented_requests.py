"""What the platform's documents tell people to send, word for word: its clients and their owners have it like this."""

HOST = "https://your-project.supabase.co"
TOKEN = "YOUR_TOKEN"
ORGANIZATION = "org-uuid"
INTEGRATION = "integration-uuid"
CALLBACK_HOST = "https://your-api.com"
"""What a test puts its own in the place of."""

SEND_NOTIFICATION = """\
curl -X POST https://your-project.supabase.co/functions/v1/send-notification \\
  -H "Authorization: Bearer YOUR_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{
    "organization_id": "org-uuid",
    "integration_type": "slack",
    "message": "Test notification",
    "priority": "high"
  }'
"""

MQTT_PUBLISH = """\
curl -X POST https://your-project.supabase.co/functions/v1/mqtt-broker \\
  -H "Authorization: Bearer YOUR_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{
    "organization_id": "org-uuid",
    "integration_id": "integration-uuid",
    "operation": "publish",
    "messages": [
      {
        "topic": "devices/sensor-123/telemetry",
        "payload": {"temperature": 23.5},
        "qos": 1
      }
    ]
  }'
"""

MQTT_SUBSCRIBE = """\
curl -X POST https://your-project.supabase.co/functions/v1/mqtt-broker \\
  -H "Authorization: Bearer YOUR_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{
    "organization_id": "org-uuid",
    "integration_id": "integration-uuid",
    "operation": "subscribe",
    "topics": ["devices/+/telemetry"],
    "callback_url": "https://your-api.com/mqtt-callback"
  }'
"""

CREATE_INTEGRATION = """\
// Create MQTT Integration
const response = await fetch('/functions/v1/integrations', {
  method: 'POST',
  headers: {
    'Authorization': `Bearer ${session.access_token}`,
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    organization_id: 'org-id',
    integration_type: 'mqtt',
    name: 'Production MQTT Broker',
    api_key_encrypted: JSON.stringify({
      broker_url: 'mqtt://broker.example.com',
      port: 1883,
      username: 'user',
      password: 'pass',
      use_tls: true,
      topics: 'devices/+/telemetry'
    })
  })
});
"""
"""JavaScript, as a browser runs it."""

CONFIGURATIONS = {
    "email": """\
{
  smtp_host: 'smtp.gmail.com',
  smtp_port: 587,
  username: 'your-email@gmail.com',
  password: 'app-password',
  from_email: 'noreply@yourcompany.com',
  from_name: 'NetNeural Alerts',
  use_tls: true
}
""",
    "slack": """\
{
  webhook_url: 'https://hooks.slack.com/services/...',
  channel: '#alerts',
  username: 'NetNeural Bot',
  icon_emoji: ':robot_face:'
}
""",
    "webhook": """\
{
  url: 'https://api.example.com/webhook',
  secret: 'your-webhook-secret', // For HMAC signing
  method: 'POST',
  content_type: 'application/json',
  custom_headers: '{"X-API-Key": "your-key"}'
}
""",
    "mqtt": """\
{
  broker_url: 'mqtt.example.com',
  port: 1883,
  protocol: 'mqtt', // or 'mqtts', 'ws', 'wss'
  username: 'your-username',
  password: 'your-password',
  client_id: 'netneural-client',
  use_tls: false
}
""",
}
"""What stands under "Configuration", by type: JavaScript, too."""

FRONTEND_NOTIFICATIONS = [
    {
        "integration_type": "email",
        "recipients": ["user@example.com"],
        "subject": "Device Alert",
        "message": "Device XYZ is offline!",
    },
    {
        "integration_type": "slack",
        "message": "🚨 Critical alert: Temperature exceeded threshold!",
        "data": {"device": "Sensor-123", "temperature": 95},
    },
    {
        "integration_type": "webhook",
        "message": "Device status changed",
        "data": {"device_id": "abc-123", "status": "online"},
    },
]
"""What `integrationService.sendEmail`, `sendSlack` and `triggerWebhook` send, in the documented fields."""
