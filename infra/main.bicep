// Everything that one environment of deployr needs in Azure. What each part is for: docs/azure.md.
targetScope = 'subscription'

@minLength(3)
@maxLength(20)
@description('What this environment is called, such as poc or hospital-prod. Names of resources are derived from it.')
param environmentName string

@description('The region. It must offer Flex Consumption: az functionapp list-flexconsumption-locations')
param location string

@allowed(['dev', 'prod'])
@description('dev: public endpoints behind Entra ID, one of everything, no network of its own. prod: private endpoints only, two instances always ready, zone redundancy, purge protection.')
param stage string = 'dev'

@allowed(['3.11', '3.12', '3.13'])
param pythonVersion string = '3.12'

@description('The site and the EMR environment, as they stand in every packet: DEPLOYR_SITE and DEPLOYR_ENVIRONMENT.')
param site string
param emrEnvironment string

@description('https, without a trailing slash.')
param emrFhirBase string

@description('The base of the EMR vendor\'s web services. Empty: no score column.')
param emrVendorBase string = ''

@description('The client id that the EMR gave us. Its key is the secret emr-key of the key vault.')
param emrClientId string = ''

@description('The site\'s time zone, such as America/Los_Angeles.')
param timeZone string = 'UTC'

@description('Where audit records are sent on to from the folder that all instances share, a FHIR base.')
param auditFhirBase string = ''

@description('Models that answer elsewhere: the whole URL of each by the name that bundles use, as { \'sepsis-net\': \'https://...\' }.')
param predictors object = {}

@description('Whether predictors ask for tokens: NAME=TOKEN, a comma between, is then the secret predictor-tokens.')
param predictorsAskForTokens bool = false

@description('Where the app tells its alerts besides mail. The URLs are the secrets alert-teams-url, alert-slack-url and alert-webhook-url; what a webhook is signed with is alert-webhook-key.')
@allowed(['teams', 'slack', 'webhook'])
param alertSinks array = []

@description('A mail server inside the network that offers STARTTLS, as HOST:PORT. Empty: the app sends no mail.')
param alertMailServer string = ''

@description('Whom the app\'s alerts are mailed from, and to: one address, and addresses with a comma between.')
param alertMailFrom string = ''
param alertMailTo string = ''

@description('Who logs in at the mail server; the password is the secret alert-mail-login. Empty: nobody does.')
param alertMailUser string = ''

@description('Staff who are told in the EMR, such as Group/on-call; a comma between.')
param alertFhirRecipients string = ''

@description('Whether entries of the registry\'s journals are signed: the private key (PEM) is then the secret journal-key.')
param signJournal bool = false

@description('Any further DEPLOYR_ settings of the site, by name. Never a secret: those are in the key vault.')
param siteSettings object = {}

@description('Who is told of alerts.')
param alertEmail string

@description('What a month may cost before somebody is told, in the currency of the subscription.')
@minValue(1)
param monthlyBudget int = 300

@description('The share of traces that are kept, from 0 to 1, as text.')
param traceShare string = '1'

@description('The most request units a second that the store may grow to. docs/store.md says how many that should be.')
@minValue(1000)
param storeMaxThroughput int = 1000

@description('Which of the two keys of the shared folders\' account is used: the other one may be renewed meanwhile.')
@allowed([0, 1])
param foldersKey int = 0

@description('A second app beside the first, for a change that must be tried before anybody gets it.')
param standby bool = false

@description('The first day of the budget\'s period: the first of a month.')
param budgetStart string = utcNow('yyyy-MM-01')

var isPrivate = stage == 'prod'
var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName, app: 'deployr', stage: stage }

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-deployr-${environmentName}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  name: 'identity'
  scope: group
  params: { name: 'id-deployr-${token}', location: location, tags: tags }
}

module network 'modules/network.bicep' = if (isPrivate) {
  name: 'network'
  scope: group
  params: { token: token, location: location, tags: tags }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    isPrivate: isPrivate
    writerPrincipalId: identity.outputs.principalId
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    isPrivate: isPrivate
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module cosmos 'modules/cosmos.bicep' = {
  name: 'cosmos'
  scope: group
  params: {
    name: 'cosmos-deployr-${token}'
    location: location
    tags: tags
    isPrivate: isPrivate
    maxThroughput: storeMaxThroughput
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    name: 'kv-${token}'
    location: location
    tags: tags
    isPrivate: isPrivate
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module endpoints 'modules/endpoints.bicep' = if (isPrivate) {
  name: 'endpoints'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    networkId: network!.outputs.networkId
    subnetId: network!.outputs.endpointSubnetId
    hostStorageId: storage.outputs.hostStorageId
    patientStorageId: storage.outputs.patientStorageId
    foldersStorageId: storage.outputs.foldersStorageId
    cosmosId: cosmos.outputs.id
    vaultId: vault.outputs.id
    monitorScopeId: monitoring.outputs.scopeId
  }
}

var colours = standby ? ['blue', 'green'] : ['blue']

module apps 'modules/app.bicep' = [
  for colour in colours: {
    name: 'app-${colour}'
    scope: group
    // Its settings are read, and its package is fetched, over the private endpoints, and by roles.
    dependsOn: [endpoints]
    params: {
      name: 'func-${token}-${colour}'
      azdService: colour == 'blue' ? 'bridge' : 'bridge-standby'
      location: location
      tags: tags
      isPrivate: isPrivate
      pythonVersion: pythonVersion
      appSubnetId: isPrivate ? network!.outputs.appSubnetId : ''
      endpointSubnetId: isPrivate ? network!.outputs.endpointSubnetId : ''
      webZoneId: isPrivate ? endpoints!.outputs.webZoneId : ''
      identityId: identity.outputs.id
      identityClientId: identity.outputs.clientId
      hostStorageName: storage.outputs.hostStorageName
      packageContainer: storage.outputs.packageContainers[colour == 'blue' ? 0 : 1]
      foldersStorageName: storage.outputs.foldersStorageName
      auditShare: storage.outputs.auditShare
      auditFolder: auditFolder
      modelsShare: storage.outputs.modelsShare
      modelsFolder: modelsFolder
      foldersKey: foldersKey
      insightsConnectionString: monitoring.outputs.connectionString
      workspaceId: monitoring.outputs.workspaceId
      settings: union(appSettings, siteSettings)
    }
  }
]

var packageFolder = '/home/site/wwwroot'
// All instances see these. The package is mounted read-only.
var auditFolder = '/mounts/audit'
var modelsFolder = '/mounts/models'
var vaultUri = vault.outputs.uri

// A reference: the value stays in the vault, and the host reads it by the app's identity.
var secrets = {
  DEPLOYR_ID_KEY: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/id-key)'
  DEPLOYR_FACTS_KEYS: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/facts-keys)'
}

var emr = union(
  { DEPLOYR_EMR_FHIR_BASE: emrFhirBase },
  empty(emrVendorBase) ? {} : { DEPLOYR_EMR_VENDOR_BASE: emrVendorBase },
  empty(emrClientId) ? {} : { DEPLOYR_EMR_CLIENT_ID: emrClientId, DEPLOYR_EMR_KEY_VAULT: '${vaultUri}secrets/emr-key' }
)

var audit = empty(auditFhirBase) ? {} : { DEPLOYR_AUDIT_FHIR_BASE: auditFhirBase }

var predictorSettings = union(
  empty(predictors) ? {} : { DEPLOYR_PREDICTORS: join(map(items(predictors), each => '${each.key}=${each.value}'), ',') },
  predictorsAskForTokens ? { DEPLOYR_PREDICTOR_TOKENS: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/predictor-tokens)' } : {}
)

var webhookSettings = {
  DEPLOYR_ALERT_WEBHOOK_URL: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/alert-webhook-url)'
  DEPLOYR_ALERT_WEBHOOK_KEY: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/alert-webhook-key)'
}

var mailSettings = {
  DEPLOYR_ALERT_MAIL_SERVER: alertMailServer
  DEPLOYR_ALERT_MAIL_FROM: alertMailFrom
  DEPLOYR_ALERT_MAIL_TO: alertMailTo
}

var mailLogin = {
  DEPLOYR_ALERT_MAIL_USER: alertMailUser
  DEPLOYR_ALERT_MAIL_PASSWORD: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/alert-mail-login)'
}

var alertSettings = union(
  contains(alertSinks, 'teams') ? { DEPLOYR_ALERT_TEAMS_URL: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/alert-teams-url)' } : {},
  contains(alertSinks, 'slack') ? { DEPLOYR_ALERT_SLACK_URL: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/alert-slack-url)' } : {},
  contains(alertSinks, 'webhook') ? webhookSettings : {},
  empty(alertMailServer) ? {} : mailSettings,
  empty(alertMailUser) ? {} : mailLogin,
  empty(alertFhirRecipients) ? {} : { DEPLOYR_ALERT_FHIR_RECIPIENTS: alertFhirRecipients }
)

var journal = signJournal ? { DEPLOYR_JOURNAL_KEY: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/journal-key)' } : {}

var appSettings = union(secrets, emr, audit, predictorSettings, alertSettings, journal, {
  DEPLOYR_PROFILE: stage
  DEPLOYR_SITE: site
  DEPLOYR_ENVIRONMENT: emrEnvironment
  DEPLOYR_TIME_ZONE: timeZone
  DEPLOYR_BUNDLES: '${modelsFolder}/bundles'
  DEPLOYR_BUNDLE_ARCHIVE: '${modelsFolder}/runs'
  DEPLOYR_DEPLOYMENTS: '${packageFolder}/hospital/deployments'
  DEPLOYR_JSON_CALLERS: '${packageFolder}/hospital/callers.json'
  DEPLOYR_REGISTRY_PEOPLE: '${packageFolder}/hospital/people.json'
  DEPLOYR_MODEL_PROOFS: '/tmp/deployr-proofs.json'
  DEPLOYR_AUDIT: 'folder:${auditFolder}'
  DEPLOYR_STORE: 'cosmos:${cosmos.outputs.endpoint}'
  DEPLOYR_STORE_DATABASE: cosmos.outputs.database
  DEPLOYR_STORE_IDENTITY: identity.outputs.clientId
  DEPLOYR_STORE_BLOBS: storage.outputs.patientBlobs
  DEPLOYR_FACTS_VAULT: storage.outputs.patientBlobs
  DEPLOYR_SPOOL: storage.outputs.patientQueues
  DEPLOYR_TELEMETRY: 'azure'
  DEPLOYR_TELEMETRY_SHARE: traceShare
})

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    location: location
    tags: tags
    email: alertEmail
    workspaceId: monitoring.outputs.workspaceId
    cosmosId: cosmos.outputs.id
    vaultId: vault.outputs.id
    hostStorageId: storage.outputs.hostStorageId
    patientStorageId: storage.outputs.patientStorageId
    monthlyBudget: monthlyBudget
    budgetStart: budgetStart
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output DEPLOYR_APP_HOSTS array = [for (colour, place) in colours: apps[place].outputs.host]
output DEPLOYR_IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId
output DEPLOYR_VAULT_NAME string = vault.outputs.name
output DEPLOYR_FOLDERS_ACCOUNT string = storage.outputs.foldersStorageName
output DEPLOYR_STORE string = 'cosmos:${cosmos.outputs.endpoint}'
output DEPLOYR_OUTBOUND_ADDRESS string = isPrivate ? network!.outputs.outboundAddress : ''
