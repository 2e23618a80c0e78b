#!/bin/bash
# User data of the instance with the services, with names in place of what stands between @: brings what deploy/install.sh
# begins with. It holds no secret, for every process of an instance can read its user data.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --no-install-recommends awscli ca-certificates curl >/dev/null

agent=$(mktemp -d)/amazon-ssm-agent.deb
curl -fsS --retry 5 -o "$agent" \
  https://s3.@REGION@.amazonaws.com/amazon-ssm-@REGION@/latest/debian_amd64/amazon-ssm-agent.deb
apt-get install -qq "$agent" >/dev/null

app=/opt/audience-explorer/app
install -d $app /etc/audience-explorer
aws s3 cp --quiet s3://@BUCKET@/audience/install/app.tar.gz - | tar xz -C $app
sed -e 's/@[R]EGION@/@REGION@/g' -e 's/@[A]CCOUNT@/@ACCOUNT@/g' -e 's/@[B]UCKET@/@BUCKET@/g' \
  $app/deploy/environment.example >/etc/audience-explorer/environment
